// Go's side of the peers: `peer METRIC PROCS AMOUNT` prints what it reached, a number or several.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	metric := os.Args[1]
	procs, _ := strconv.Atoi(os.Args[2])
	amount, _ := strconv.Atoi(os.Args[3])
	runtime.GOMAXPROCS(procs)
	switch metric {
	case "one":
		fmt.Println(nsPer(amount, func() { oneByOne(amount) }))
	case "batch":
		fmt.Println(nsPer(amount, func() { batches(amount) }))
	case "yield":
		fmt.Println(nsPer(amount, func() { yields(amount) }))
	case "ping":
		fmt.Println(nsPer(amount, func() { ping(amount) }))
	case "mutex":
		fmt.Println(nsPer(100*amount, func() { mutex(amount) }))
	case "channel":
		fmt.Println(1e3 / nsPer(amount, func() { channel(amount) }))
	case "fib":
		var calls uint64
		ns := nsPer(1, func() { _, calls = fib(amount) })
		fmt.Println(ns / float64(calls))
	case "skynet":
		fmt.Println(nsPer(1, func() { skynet(amount) }) / 1e6)
	case "sleeps":
		sleeps(amount)
	case "echo":
		echo()
	case "http":
		hello()
	default:
		os.Exit(2)
	}
}

func nsPer(steps int, f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds()) / float64(steps)
}

func oneByOne(tasks int) {
	done := make(chan int, 1)
	for i := 0; i < tasks; i++ {
		go func() { done <- 1 }()
		<-done
	}
}

func batches(tasks int) {
	for i := 0; i < tasks/1000; i++ {
		var group sync.WaitGroup
		group.Add(1000)
		for j := 0; j < 1000; j++ {
			go group.Done()
		}
		group.Wait()
	}
}

func yields(yields int) {
	var group sync.WaitGroup
	for i := 0; i < 100; i++ {
		group.Add(1)
		go func() {
			for j := 0; j < yields/100; j++ {
				runtime.Gosched()
			}
			group.Done()
		}()
	}
	group.Wait()
}

func ping(rounds int) {
	there, back := make(chan int), make(chan int)
	go func() {
		for value := range there {
			back <- value
		}
	}()
	for i := 0; i < rounds; i++ {
		there <- i
		<-back
	}
	close(there)
}

func mutex(each int) {
	var lock sync.Mutex
	var group sync.WaitGroup
	count := 0
	for i := 0; i < 100; i++ {
		group.Add(1)
		go func() {
			for j := 0; j < each; j++ {
				lock.Lock()
				count++
				lock.Unlock()
			}
			group.Done()
		}()
	}
	group.Wait()
	if count != 100*each {
		panic("lost an increment")
	}
}

func channel(messages int) {
	values := make(chan int, 128)
	var senders, receivers sync.WaitGroup
	for i := 0; i < 2; i++ {
		senders.Add(1)
		go func() {
			for j := 0; j < messages/2; j++ {
				values <- j
			}
			senders.Done()
		}()
		receivers.Add(1)
		go func() {
			for range values {
			}
			receivers.Done()
		}()
	}
	senders.Wait()
	close(values)
	receivers.Wait()
}

// fib returns the number and how many goroutines it took.
func fib(n int) (uint64, uint64) {
	if n < 2 {
		return uint64(n), 0
	}
	type answer struct{ value, calls uint64 }
	other := make(chan answer, 1)
	go func() {
		value, calls := fib(n - 2)
		other <- answer{value, calls}
	}()
	value, calls := fib(n - 1)
	theirs := <-other
	return value + theirs.value, calls + theirs.calls + 1
}

func skynet(leaves int) {
	result := make(chan int, 1)
	go node(result, 0, leaves)
	if <-result != leaves*(leaves-1)/2 {
		panic("wrong sum")
	}
}

func node(up chan int, number, leaves int) {
	if leaves == 1 {
		up <- number
		return
	}
	down := make(chan int, 10)
	for i := 0; i < 10; i++ {
		go node(down, number+i*leaves/10, leaves/10)
	}
	sum := 0
	for i := 0; i < 10; i++ {
		sum += <-down
	}
	up <- sum
}

// sleeps prints the CPU time in ms, and the lateness in ms that half and 99 % stayed below.
func sleeps(count int) {
	late := make([]time.Duration, count)
	var group sync.WaitGroup
	group.Add(count)
	before := cpu()
	for i := 0; i < count; i++ {
		go func(i int) {
			length := time.Duration(1+i*7919%1000) * time.Millisecond
			start := time.Now()
			time.Sleep(length)
			late[i] = time.Since(start) - length
			group.Done()
		}(i)
	}
	group.Wait()
	used := cpu() - before
	sort.Slice(late, func(a, b int) bool { return late[a] < late[b] })
	fmt.Println(ms(used), ms(late[count/2]), ms(late[count*99/100]))
}

func ms(length time.Duration) float64 {
	return float64(length.Nanoseconds()) / 1e6
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		panic("getrusage")
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
