/* System calls without a C library. Numbers, flags and layouts come from the kernel's own headers (linux-libc-dev).
 * Each call returns its result or a negated errno. */
#ifndef MORPHISMS_EXEC_SYSCALLS_H
#define MORPHISMS_EXEC_SYSCALLS_H

#include <asm/signal.h>
#include <asm/stat.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/mman.h>
#include <linux/stat.h>
#include <linux/time.h>
#include <linux/time_types.h>
#include <stddef.h>

static inline long system_call(long number, long one, long two, long three, long four, long five, long six)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = four;
    register long r8 __asm__("r8") = five;
    register long r9 __asm__("r9") = six;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(one), "S"(two), "d"(three), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = one;
    register long x1 __asm__("x1") = two;
    register long x2 __asm__("x2") = three;
    register long x3 __asm__("x3") = four;
    register long x4 __asm__("x4") = five;
    register long x5 __asm__("x5") = six;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
#error "x86_64 and aarch64 only: write down this machine's system call, and its start in start.c"
#endif
}

static inline long sys_exists(const char *path)
{
    return system_call(__NR_faccessat, AT_FDCWD, (long)path, 0 /* F_OK */, 0, 0, 0);
}

static inline long sys_open(const char *path, int flags)
{
    return system_call(__NR_openat, AT_FDCWD, (long)path, flags, 0, 0, 0);
}

static inline long sys_stat(int descriptor, struct stat *status)
{
    return system_call(__NR_fstat, descriptor, (long)status, 0, 0, 0, 0);
}

static inline long sys_read(int descriptor, char *bytes, size_t size)
{
    return system_call(__NR_read, descriptor, (long)bytes, (long)size, 0, 0, 0);
}

static inline long sys_write(int descriptor, const char *bytes, size_t size)
{
    return system_call(__NR_write, descriptor, (long)bytes, (long)size, 0, 0, 0);
}

/* Zeroed private memory, or a negated errno. */
static inline long sys_memory(size_t size)
{
    return system_call(__NR_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static inline long sys_clock(struct __kernel_timespec *time)
{
    return system_call(__NR_clock_gettime, CLOCK_MONOTONIC, (long)time, 0, 0, 0, 0);
}

/* One bit per signal, the first for signal 1. `former` may be NULL. */
static inline long sys_mask(int how, const unsigned long *signals, unsigned long *former)
{
    return system_call(__NR_rt_sigprocmask, how, (long)signals, (long)former, sizeof(*signals), 0, 0);
}

/* Sleeps until one of the blocked `signals` arrives, and returns it; -EAGAIN when the time is over. */
static inline long sys_await_signal(const unsigned long *signals, const struct __kernel_timespec *time)
{
    return system_call(__NR_rt_sigtimedwait, (long)signals, 0, (long)time, sizeof(*signals), 0, 0);
}

/* A new file that only its owner may open until its mode is set; a link of that name is not followed. */
static inline long sys_create(const char *path)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    return system_call(__NR_openat, AT_FDCWD, (long)path, flags, 0600, 0, 0);
}

static inline long sys_mode(int descriptor, unsigned int mode)
{
    return system_call(__NR_fchmod, descriptor, mode, 0, 0, 0, 0);
}

static inline long sys_process(void)
{
    return system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

static inline long sys_close(int descriptor)
{
    return system_call(__NR_close, descriptor, 0, 0, 0, 0, 0);
}

static inline long sys_rename(const char *from, const char *to, unsigned int flags)
{
    return system_call(__NR_renameat2, AT_FDCWD, (long)from, AT_FDCWD, (long)to, flags, 0);
}

static inline long sys_remove(const char *path)
{
    return system_call(__NR_unlinkat, AT_FDCWD, (long)path, 0, 0, 0, 0);
}

static inline long sys_execve(const char *path, char *const arguments[], char *const environment[])
{
    return system_call(__NR_execve, (long)path, (long)arguments, (long)environment, 0, 0, 0);
}

_Noreturn static inline void sys_exit(int code)
{
    for (;;) {
        system_call(__NR_exit_group, code, 0, 0, 0, 0, 0);
    }
}

#endif
