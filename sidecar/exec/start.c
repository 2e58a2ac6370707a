/* The entry point. The kernel leaves argc, argv and the environment on the stack (psABI, "Initial Stack and Register
 * State"). Assembly, because a function would have moved the stack pointer already. */

#include "start.h"

_Noreturn void start_in_c(long *stack);

#if defined(__x86_64__)
__asm__(".text\n"
        ".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "    endbr64\n"
        "    xor %ebp, %ebp\n" /* the outermost frame */
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call start_in_c\n"
        ".size _start, . - _start\n");
#elif defined(__aarch64__)
__asm__(".text\n"
        ".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "    hint #34\n" /* bti c */
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl start_in_c\n"
        ".size _start, . - _start\n");
#endif

_Noreturn void start_in_c(long *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    become(argc, argv, argv + argc + 1);
}
