// The servers: each prints its port and serves until it is killed.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
)

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return listener
}

func echo() {
	listener := listen()
	for {
		stream, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer stream.Close()
			buf := make([]byte, 64)
			for {
				n, err := stream.Read(buf)
				if err != nil {
					return
				}
				if _, err := stream.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func hello() {
	serve := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "Hello, World!")
	}
	panic(http.Serve(listen(), http.HandlerFunc(serve)))
}
