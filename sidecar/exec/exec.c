/* morphisms-exec CONTAINER -- COMMAND [ARGUMENT…]
 *
 * Waits until the sidecar has published, merges CONTAINER's secrets into the environment, becomes COMMAND by execve.
 * The process stays the same, so PID 1, signals, standard streams and working directory are the application's own.
 *
 * morphisms-exec --install copies the program to where the first form is run from, for containers that start before the
 * sidecar has published. README.md lists the exit codes and explains the design.
 */
#include <stdbool.h>
#include <stddef.h>

#include "contract.h"
#include "environ.h"
#include "install.h"
#include "lookup.h"
#include "message.h"
#include "names.h"
#include "start.h"
#include "syscalls.h"

#define MILLISECOND 1000000L
#define SECOND (1000 * MILLISECOND)
#define FIRST_PAUSE (10 * MILLISECOND)
#define LONGEST_PAUSE (50 * MILLISECOND)

/* Static, so that no buffer is next to a return address. `file` is not wiped: the secrets in it are the application's
 * environment until execve, and execve (or the exit of a refusal) discards the whole address space. */
static char file[MAX_FILE + 1];
static struct pairs pairs;
static struct message message;
static char candidate[PATH_MAX];

static void say(const char *text)
{
    add_text(&message, text);
}

/* Every refusal begins with the program's name and the container's. */
static void say_for(const char *container, const char *text)
{
    say("morphisms-exec: ");
    say(container);
    say(": ");
    say(text);
}

static void say_reason(long error)
{
    switch (-error) {
    case EACCES:
        say("permission denied");
        break;
    case E2BIG:
        say("arguments and environment are too long together");
        break;
    case ENOEXEC:
        say("not a program for this machine");
        break;
    case ENOENT:
        say("not found, or its interpreter is not");
        break;
    case ENOTDIR:
        say("a part of its path is not a folder");
        break;
    case ELOOP:
        say("too many links");
        break;
    default:
        say("error ");
        add_number(&message, (unsigned long)-error);
    }
}

/* A single write, so that no other line is mixed in. A write that fails does not change the refusal. */
_Noreturn static void refuse(enum exit_code code)
{
    say("\n");
    sys_write(2, message.text, message.length);
    long log = sys_open(TERMINATION_LOG, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (log >= 0) {
        sys_write((int)log, message.text, message.length);
    }
    sys_exit((int)code);
}

static bool is_separator(const char *word)
{
    return word[0] == '-' && word[1] == '-' && word[2] == '\0';
}

static bool is_install(const char *word)
{
    static const char wanted[] = "--install";
    size_t at = 0;
    while (word[at] == wanted[at] && wanted[at] != '\0') {
        at++;
    }
    return word[at] == wanted[at];
}

static void check_arguments(int argc, char **argv)
{
    if (argc < 4 || !is_separator(argv[2])) {
        say("morphisms-exec: usage: exec CONTAINER -- COMMAND [ARGUMENT...], or exec --install");
        refuse(EXIT_USAGE);
    }
    if (!is_container_name(argv[1])) {
        say("morphisms-exec: the first argument is not a container's name (a-z, 0-9 and -, at most 63)");
        refuse(EXIT_CONTAINER_NAME);
    }
}

static long now(void)
{
    struct __kernel_timespec time = {0};
    sys_clock(&time);
    return (long)time.tv_sec * SECOND + (long)time.tv_nsec;
}

#define BIT(number) (1UL << ((number) - 1))

/* The signals whose default action ends a process, but for those of a fault in the process itself. An image's
 * STOPSIGNAL may be any of them. */
static const unsigned long ending_signals =
    ~(BIT(SIGKILL) | BIT(SIGSTOP) | BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGTSTP) | BIT(SIGTTIN) | BIT(SIGTTOU) |
      BIT(SIGURG) | BIT(SIGWINCH) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGABRT) | BIT(SIGBUS) | BIT(SIGFPE) |
      BIT(SIGSEGV) | BIT(SIGSYS));

/* Ends the program when a signal arrives meanwhile. Linux drops a signal to process 1 that has no handler, unless the
 * signal is blocked. A blocked one needs no handler, so there is none to undo before execve. */
static void rest(long nanoseconds)
{
    struct __kernel_timespec time = {.tv_nsec = nanoseconds};
    long signal = sys_await_signal(&ending_signals, &time);
    if (signal > 0) {
        sys_exit(EXIT_SIGNAL + (int)signal);
    }
}

/* A short poll: it needs no file descriptor and works on every file system. */
static void wait_until_published(const char *container)
{
    unsigned long inherited = 0;
    sys_mask(SIG_BLOCK, &ending_signals, &inherited);
    long deadline = now() + WAIT_MILLISECONDS * MILLISECOND;
    long pause = FIRST_PAUSE;
    for (;;) {
        long result = sys_exists(READY_FILE);
        if (result == 0) {
            rest(0); /* for a signal that arrived since the last look */
            sys_mask(SIG_SETMASK, &inherited, NULL);
            return;
        }
        if (result != -ENOENT) {
            say_for(container, "cannot look for " READY_FILE ": ");
            say_reason(result);
            refuse(EXIT_SYSTEM);
        }
        long left = deadline - now();
        if (left <= 0) {
            say_for(container, "no secrets were published within ");
            add_number(&message, WAIT_MILLISECONDS / 1000);
            say(" s (no " READY_FILE "); the last state and the logs of morphisms-init say why");
            refuse(EXIT_NOT_PUBLISHED);
        }
        rest(left < pause ? left : pause);
        pause = pause < LONGEST_PAUSE ? pause + FIRST_PAUSE : LONGEST_PAUSE;
    }
}

/* The folder may be a link, because the sidecar switches it; the file may not. O_NONBLOCK: a pipe must not block. */
static int open_env_file(const char *container)
{
    static char path[sizeof(ENV_FOLDER) + MAX_CONTAINER_NAME] = ENV_FOLDER;
    char *end = path + sizeof(ENV_FOLDER) - 1;
    for (const char *from = container; *from != '\0'; from++) {
        *end++ = *from;
    }

    long descriptor = sys_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (descriptor == -ENOENT) {
        say_for(container, "nothing was published for this container (no ");
        say(path);
        say("); the plan of morphisms-init does not name it");
        refuse(EXIT_NO_ENV_FILE);
    }
    struct stat status;
    long error = descriptor < 0 ? descriptor : sys_stat((int)descriptor, &status);
    if (error == -ELOOP || (error == 0 && !S_ISREG(status.st_mode))) {
        say_for(container, path);
        say(" is not a regular file");
        refuse(EXIT_NOT_A_FILE);
    }
    if (error < 0) {
        say_for(container, "cannot open ");
        say(path);
        say(": ");
        say_reason(error);
        refuse(EXIT_SYSTEM);
    }
    return (int)descriptor;
}

static size_t read_env_file(const char *container)
{
    int descriptor = open_env_file(container);
    size_t size = 0;
    for (;;) {
        long count = sys_read(descriptor, file + size, sizeof(file) - size);
        if (count == -EINTR) {
            continue;
        }
        if (count < 0) {
            say_for(container, "cannot read the secrets: ");
            say_reason(count);
            refuse(EXIT_SYSTEM);
        }
        size += (size_t)count;
        if (size > MAX_FILE) {
            say_for(container, "the secrets take more than ");
            add_number(&message, MAX_FILE);
            say(" bytes; use files for large ones");
            refuse(EXIT_TOO_LARGE);
        }
        if (count == 0) {
            return size; /* execve closes the descriptor: O_CLOEXEC */
        }
    }
}

/* The text in place of a name may be part of a value, so only a name that passed its checks is shown. */
_Noreturn static void refuse_pairs(const char *container)
{
    if (pairs.fault >= FAULT_REPEATED_NAME) {
        say_for(container, "variable ");
        add_shown(&message, pairs.at.text, pairs.at.name_length);
    } else {
        say_for(container, "pair ");
        add_number(&message, pairs.at_number);
    }
    switch (pairs.fault) {
    case FAULT_NO_FINAL_NUL:
        say(" has no NUL at its end");
        break;
    case FAULT_NO_EQUALS_SIGN:
        say(" has no =");
        break;
    case FAULT_EMPTY_NAME:
        say(" has an empty name");
        break;
    case FAULT_BAD_NAME:
        say(" has a name with characters other than printable ASCII");
        break;
    case FAULT_REPEATED_NAME:
        say(" is there twice");
        break;
    case FAULT_LONG_STRING:
        say(" takes more than ");
        add_number(&message, MAX_STRING);
        say(" bytes with its name, more than Linux takes; use a file");
        refuse(EXIT_TOO_LARGE);
    case FAULT_MANY_PAIRS:
        say(" is one more than the ");
        add_number(&message, MAX_PAIRS);
        say(" that are allowed");
        refuse(EXIT_TOO_LARGE);
    case FAULT_LONG_ENVIRONMENT:
        say(" makes the environment larger than ");
        add_number(&message, MAX_EXPANDED);
        say(" bytes by the variables that it names");
        refuse(EXIT_TOO_LARGE);
    case FAULT_NONE:
        break;
    }
    refuse(EXIT_MALFORMED);
}

static void *get_memory(const char *container, size_t size)
{
    long memory = sys_memory(size);
    if (memory < 0) {
        say_for(container, "cannot merge the environment: ");
        say_reason(memory);
        refuse(EXIT_SYSTEM);
    }
    return (void *)memory;
}

static char **merged_environment(const char *container, char **inherited)
{
    size_t size;
    if (!parse_pairs(&pairs, file, read_env_file(container)) || !measure_pairs(&pairs, inherited, &size)) {
        refuse_pairs(container);
    }
    if (size > 0) {
        expand_pairs(&pairs, inherited, get_memory(container, size));
    }
    char **merged = get_memory(container, (count_strings(inherited) + pairs.count + 1) * sizeof(char *));
    merge_environment(merged, inherited, &pairs);
    return merged;
}

/* Returns only on failure, with a negated errno. Unlike execvp, it does not pass a file that the kernel cannot run
 * (ENOEXEC) to a shell: container runtimes do not either, and an empty image has no shell. */
static long run(char **command, char **environment)
{
    if (has_slash(command[0])) {
        return sys_execve(command[0], command, environment);
    }
    long failure = -ENOENT;
    if (command[0][0] == '\0') {
        return failure;
    }
    struct lookup lookup = start_lookup(command[0], find_value(environment, "PATH"));
    while (next_candidate(&lookup, candidate, sizeof(candidate))) {
        long error = sys_execve(candidate, command, environment);
        switch (-error) {
        case ENOENT:
        case ENOTDIR:
        case ENAMETOOLONG:
            break;
        case EACCES:
            failure = error; /* a later directory may have one that runs */
            break;
        default:
            return error;
        }
    }
    return failure;
}

/* Beside a morphisms-init that publishes the same file at the same time; whoever comes second leaves it. */
_Noreturn static void install_itself(void)
{
    struct installation done = install(file, sizeof(file));
    if (done.error == 0) {
        sys_exit(0);
    }
    say("morphisms-exec: cannot install " HELPER_FILE ": ");
    say(done.step);
    say(": ");
    say_reason(done.error);
    refuse(EXIT_NOT_INSTALLED);
}

_Noreturn void become(int argc, char **argv, char **environment)
{
    if (argc == 2 && is_install(argv[1])) {
        install_itself();
    }
    check_arguments(argc, argv);
    const char *container = argv[1];
    char **command = argv + 3;

    wait_until_published(container);
    long error = run(command, merged_environment(container, environment));

    /* The command as given, not the searched PATH, which may be the value of a secret. */
    say_for(container, "cannot run ");
    add_shown(&message, command[0], PATH_MAX);
    say(": ");
    say_reason(error);
    refuse(error == -ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}
