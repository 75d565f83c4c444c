/* The current worker: one word per thread, zero at first. The same text on every architecture.
 *
 * The accessors are inline assembly beside the switch (src/arch), of the initial-exec model: the
 * word's offset from the thread pointer is one load from the GOT, which the linker turns into a
 * constant when it links an executable. The compiler sees neither the word nor its address, so it
 * cannot keep either across a switch.
 */
.pushsection .tbss.ramie,"awT",@nobits
.globl  ramie_v0_1_current
.hidden ramie_v0_1_current
.type   ramie_v0_1_current, @tls_object
.p2align 3
ramie_v0_1_current:
    .zero 8
.size   ramie_v0_1_current, 8
.popsection
