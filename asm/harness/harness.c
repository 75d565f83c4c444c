/* The switch and the entry of this architecture, without Rust: for machines that only an emulator
 * has, and for whoever changes the assembly and wants an answer in a second.
 *
 * The same texts as in the crate are assembled here: switch.s inlined with its clobber list,
 * entry.S and check.S at file scope. ci/asm-qemu.sh builds and runs it, sound and with a switch
 * that forgets a register. Prints "ok: ..." or "FAILED: ..." for each test, then
 * "N passed, M failed".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#ifdef __ARM_FEATURE_BTI_DEFAULT
/* Built with -mbranch-protection=bti: our own code lies on pages of its own, which main guards, so
 * that a jump to anything but a landing pad is SIGILL. (The C library has no landing pads.) */
#include <sys/mman.h>
extern char guarded_begin[], guarded_end[];
__asm__(".text\n.p2align 12\n.globl guarded_begin\nguarded_begin:");
#define PROT_BTI_ 0x10
#endif

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define SYM(name) CAT(PREFIX, name) /* PREFIX: the symbols' prefix, given by the script */

typedef uintptr_t entry_fn(void *arg, uintptr_t word);
typedef uintptr_t two_fn(uintptr_t a, uintptr_t b);

struct context { void *peer; };
struct start { entry_fn *entry; void *arg; struct context *this_; uintptr_t unused; };

void SYM(fiber_entry)(void);
uintptr_t SYM(check_registers)(two_fn *f, uintptr_t a, uintptr_t b, const uint64_t *fill,
                               uint64_t *seen);
uintptr_t SYM(check_forgets)(uintptr_t a, uintptr_t b);
uintptr_t SYM(check_sp)(void *arg, uintptr_t word);

/* ---- what differs between architectures --------------------------------------------------- */

#if defined(__x86_64__)
#define SYNTAX ".intel_syntax noprefix\n"
#define SYNTAX_END "\n.att_syntax prefix"
#define WORD "rdi"
#define PEER "rsi"
#define CLOBBERED                                                                                  \
    "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",     \
        "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
        "xmm13", "xmm14", "xmm15"
#define SP_AT_ENTRY 8
static const char *const names[] = {"rbx", "rbp", "r12", "r13", "r14", "r15"};
struct frame { void (*resume_at)(void); void *start_fiber; struct start start; };

static uint32_t get_fp_control(void) {
    uint32_t word;
    __asm__ volatile("stmxcsr %0" : "=m"(word));
    return word;
}
static void set_fp_control(uint32_t word) { __asm__ volatile("ldmxcsr %0" : : "m"(word)); }
#define FP_CONTROL_OTHER 0x3f80 /* rounds down */

#elif defined(__aarch64__)
#define SYNTAX
#define SYNTAX_END
#define WORD "x0"
#define PEER "x1"
#define CLOBBERED                                                                                  \
    "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",      \
        "x16", "x17", "x18", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",        \
        "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",    \
        "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",        \
        "v25", "v26", "v27", "v28", "v29", "v30", "v31"
#define SP_AT_ENTRY 0
static const char *const names[] = {"x19", "x20", "x21", "x22", "x23", "x24", "x25",
                                    "x26", "x27", "x28", "x29", "d8",  "d9",  "d10",
                                    "d11", "d12", "d13", "d14", "d15"};
struct frame {
    uintptr_t frame_pointer;
    void (*resume_at)(void);
    void *start_fiber;
    uintptr_t unused;
    struct start start;
};

static uint32_t get_fp_control(void) {
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return (uint32_t)word;
}
static void set_fp_control(uint32_t word) {
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)word));
}
#define FP_CONTROL_OTHER 0x00800000 /* rounds down */

#elif defined(__riscv) && __riscv_xlen == 64
#define SYNTAX
#define SYNTAX_END
#define WORD "a0"
#define PEER "a1"
#define CLOBBERED                                                                                  \
    "ra", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "a2", "a3", "a4", "a5", "a6", "a7", "s2",      \
        "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "ft0", "ft1", "ft2", "ft3", "ft4", \
        "ft5", "ft6", "ft7", "ft8", "ft9", "ft10", "ft11", "fa0", "fa1", "fa2", "fa3", "fa4",      \
        "fa5", "fa6", "fa7", "fs0", "fs1", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", \
        "fs10", "fs11"
#define SP_AT_ENTRY 0
static const char *const names[] = {"s0",  "s1",  "s2",  "s3",  "s4",   "s5",  "s6",  "s7",
                                    "s8",  "s9",  "s10", "s11", "fs0",  "fs1", "fs2", "fs3",
                                    "fs4", "fs5", "fs6", "fs7", "fs8",  "fs9", "fs10", "fs11"};
struct frame {
    void (*resume_at)(void);
    void *start_fiber;
    uintptr_t unused[2];
    struct start start;
};

static uint32_t get_fp_control(void) {
    uint32_t word;
    __asm__ volatile("frrm %0" : "=r"(word));
    return word;
}
static void set_fp_control(uint32_t word) { __asm__ volatile("fsrm %0" : : "r"(word)); }
#define FP_CONTROL_OTHER 2 /* rounds down */

#else
#error "no switch for this architecture"
#endif

/* ---- the contract, as src/arch has it ----------------------------------------------------- */

__asm__(SYNTAX ".include \"entry.S\"\n.include \"check.S\"" SYNTAX_END);

static inline __attribute__((always_inline)) uintptr_t switch_(uintptr_t word_, void **peer_) {
    register uintptr_t word __asm__(WORD) = word_;
    register void *peer __asm__(PEER) = *peer_;
    __asm__ volatile(SYNTAX ".include \"switch.s\"" SYNTAX_END
                     : "+r"(word), "+r"(peer)
                     :
                     : CLOBBERED, "cc", "memory");
    *peer_ = peer;
    return word;
}

static uintptr_t resume(struct context *context, uintptr_t word) {
    return switch_(word, &context->peer);
}

static uintptr_t suspend(struct context *context, uintptr_t word) {
    return switch_(word, &context->peer);
}

static _Noreturn void start_fiber(uintptr_t word, void *peer, const struct start *start) {
    struct context *context = start->this_;
    if ((uintptr_t)__builtin_frame_address(0) % 16 != 0) {
        printf("FAILED: the stack is misaligned in the first function\n");
        abort();
    }
    context->peer = peer;
    uintptr_t last = start->entry(start->arg, word);
    switch_(last, &context->peer);
    abort();
}

#define STACK_BYTES (64 << 10)
struct stack { _Alignas(16) unsigned char bytes[STACK_BYTES]; };

static void init(struct context *context, struct stack *stack, entry_fn *entry, void *arg) {
    struct frame *frame = (struct frame *)(stack->bytes + STACK_BYTES) - 1;
    memset(frame, 0, sizeof *frame);
    frame->resume_at = SYM(fiber_entry);
    frame->start_fiber = (void *)start_fiber;
    frame->start = (struct start){entry, arg, context, 0};
    context->peer = frame;
}

/* ---- the tests ---------------------------------------------------------------------------- */

#define COUNT (sizeof names / sizeof names[0])
static int passed, failed;
static struct stack stacks[2];
static struct context contexts[2];

static void verdict(const char *what, int good) {
    printf("%s: %s\n", good ? "ok" : "FAILED", what);
    *(good ? &passed : &failed) += 1;
}

static uintptr_t multiply(void *arg, uintptr_t word) {
    while (word != 0)
        word = suspend(arg, word * 3);
    return ~(uintptr_t)7;
}

static void words_both_ways(void) {
    int good = 1;
    struct context *context = &contexts[0];
    init(context, &stacks[0], multiply, context);
    const uintptr_t words[] = {1, UINTPTR_MAX, (uintptr_t)1 << 63, 0x0123456789abcdef};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        good &= resume(context, words[i]) == words[i] * 3;
    good &= resume(context, 0) == ~(uintptr_t)7;
    verdict("words go both ways", good);
}

static void a_million_round_trips(void) {
    int good = 1;
    struct context *context = &contexts[0];
    init(context, &stacks[0], multiply, context);
    for (uintptr_t word = 1; word <= 1000000; word++)
        good &= resume(context, word) == word * 3;
    resume(context, 0);
    verdict("a million round trips", good);
}

/* Two fibers resumed by turns; for its second half, the second one is resumed by the first. */
static uintptr_t interleaved(void *arg, uintptr_t word) {
    struct context *context = arg;
    for (int i = 0; i < 1000; i++) {
        if (context == &contexts[0] && i >= 500)
            word += resume(&contexts[1], word);
        word = suspend(context, word + 1);
    }
    return word;
}

static void two_fibers(void) {
    uintptr_t words[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        init(&contexts[i], &stacks[i], interleaved, &contexts[i]);
    int good = 1;
    for (uintptr_t i = 0; i < 500; i++)
        for (int f = 0; f < 2; f++) {
            words[f] = resume(&contexts[f], i);
            good &= words[f] == i + 1;
        }
    for (uintptr_t i = 0; i < 500; i++)
        good &= resume(&contexts[0], i) == 2 * i + 2; /* i, and i + 1 from the inner one, and 1 */
    good &= resume(&contexts[0], 5) == 5 && resume(&contexts[1], 6) == 6;
    verdict("two fibers, side by side and nested", good);
}

static char lost[256];

/* f(a, b), all callee-saved registers filled before and compared after. */
static uintptr_t checked(two_fn *f, uintptr_t a, uintptr_t b, uint64_t salt) {
    uint64_t fill[COUNT], seen[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        fill[i] = (salt + i + 1) * 0x9e3779b97f4a7c15;
    uintptr_t result = SYM(check_registers)(f, a, b, fill, seen);
    for (size_t i = 0; i < COUNT; i++)
        if (fill[i] != seen[i] && strstr(lost, names[i]) == NULL)
            snprintf(lost + strlen(lost), sizeof lost - strlen(lost), " %s", names[i]);
    return result;
}

/* With -O2 this needs no register but the stack pointer, so that a lost one is reported. */
static uintptr_t resume_two(uintptr_t context, uintptr_t word) {
    struct context *volatile address = (struct context *)context;
    void *peer = address->peer;
    word = switch_(word, &peer);
    address->peer = peer;
    return word;
}

static uintptr_t suspend_two(uintptr_t context, uintptr_t word) {
    return resume_two(context, word);
}

static uintptr_t fills_registers(void *arg, uintptr_t word) {
    uint64_t salt = 1000000;
    while (word != 0) {
        word = checked(suspend_two, (uintptr_t)arg, word + 1, salt);
        salt += word;
    }
    return 0;
}

static void registers_survive(void) {
    int good = 1;
    struct context *context = &contexts[0];
    init(context, &stacks[0], fills_registers, context);
    lost[0] = 0;
    for (uintptr_t word = 1; word <= 100000; word++)
        good &= checked(resume_two, (uintptr_t)context, word, word) == word + 1;
    good &= checked(resume_two, (uintptr_t)context, 0, 0) == 0;
    char text[320];
    snprintf(text, sizeof text, "%zu callee-saved registers survive, on both sides;%s%s", COUNT,
             lost[0] ? " lost:" : " none lost", lost);
    verdict(text, good && !lost[0]);
}

static void the_checker_can_fail(void) {
    lost[0] = 0;
    uintptr_t sum = checked(SYM(check_forgets), 2, 3, 42);
    verdict("canary: a forgotten register is found", sum == 5 && lost[0] && !strchr(lost + 1, ' '));
}

static void aligned_at_entry(void) {
    init(&contexts[0], &stacks[0], SYM(check_sp), NULL);
    uintptr_t sp = resume(&contexts[0], 0);
    verdict("the stack is aligned at entry", sp % 16 == SP_AT_ENTRY);
}

static uintptr_t changes_fp_control(void *arg, uintptr_t word) {
    while (word != 0) {
        uint32_t found = get_fp_control();
        set_fp_control((uint32_t)word);
        word = suspend(arg, found);
    }
    return 0;
}

static void fp_control_passes_through(void) {
    struct context *context = &contexts[0];
    uint32_t original = get_fp_control();
    init(context, &stacks[0], changes_fp_control, context);
    int good = resume(context, FP_CONTROL_OTHER) == original;
    good &= get_fp_control() == FP_CONTROL_OTHER;
    set_fp_control(original);
    good &= resume(context, FP_CONTROL_OTHER) == original;
    set_fp_control(original);
    resume(context, 0);
    verdict("the FP control word is neither saved nor changed", good);
}

struct walk { int frames; uintptr_t last; };

static _Unwind_Reason_Code step(struct _Unwind_Context *unwind, void *arg) {
    struct walk *walk = arg;
    walk->frames += 1;
    if (_Unwind_GetIP(unwind) != 0)
        walk->last = _Unwind_GetIP(unwind);
    return walk->frames < 100 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static uintptr_t walks(void *arg, uintptr_t word) {
    struct walk walk = {0, 0};
    suspend(arg, word);
    _Unwind_Backtrace(step, &walk);
    uintptr_t entry = (uintptr_t)SYM(fiber_entry);
    return walk.frames < 10 && walk.last > entry && walk.last <= entry + 64;
}

static void unwinding_ends_at_entry(void) {
    init(&contexts[0], &stacks[0], walks, &contexts[0]);
    resume(&contexts[0], 0);
    verdict("unwinding ends at the entry", resume(&contexts[0], 0) == 1);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
#ifdef __ARM_FEATURE_BTI_DEFAULT
    size_t bytes = (size_t)(guarded_end - guarded_begin);
    int guarded = mprotect(guarded_begin, bytes, PROT_READ | PROT_EXEC | PROT_BTI_) == 0;
    verdict("our code is guarded by BTI", guarded);
#endif
    registers_survive(); /* first, as all else trips over a lost register */
    words_both_ways();
    aligned_at_entry();
    the_checker_can_fail();
    two_fibers();
    fp_control_passes_through();
    unwinding_ends_at_entry();
    a_million_round_trips();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#ifdef __ARM_FEATURE_BTI_DEFAULT
__asm__(".pushsection .text.ramie,\"ax\",@progbits\n.p2align 12\n"
        ".globl guarded_end\nguarded_end:\n.popsection");
#endif
