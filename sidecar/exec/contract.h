/* The contract with the sidecar, the webhook and readers of the exit codes. README.md describes it. */
#ifndef MORPHISMS_EXEC_CONTRACT_H
#define MORPHISMS_EXEC_CONTRACT_H

/* Test builds override the values in #ifndef. In a shipped binary they are constants: no image, manifest or secret can
 * change the folder or the deadline. */
#ifndef RUN_DIRECTORY
#define RUN_DIRECTORY "/morphisms/run"
#endif

/* morphisms-init ends, or answers its startup probe, before this program starts, so the wait is normally zero. It is
 * for a kubelet or host that starts containers out of order. It is bounded: a hanging container reports nothing. */
#ifndef WAIT_MILLISECONDS
#define WAIT_MILLISECONDS 60000
#endif

#define READY_FILE RUN_DIRECTORY "/ready"
#define ENV_FOLDER RUN_DIRECTORY "/env/"

/* Kubernetes reports the content of this file as the container's termination message (terminationMessagePath). If a
 * measured agent policy keeps logs inside the guest, this line is the only one that users can read. */
#define TERMINATION_LOG "/dev/termination-log"

/* The maximal length of an RFC 1123 label, and so of a container's name. */
#define MAX_CONTAINER_NAME 63

/* Twice the values that the sidecar publishes at most, because it writes each `$` of them as `$$`. */
#define MAX_FILE (2 * 1024 * 1024)

/* More than execve takes for arguments and environment together (3/4 of _STK_LIM, 6 MiB). */
#ifndef MAX_EXPANDED
#define MAX_EXPANDED (8 * 1024 * 1024)
#endif

/* The fuzzer's build lowers these two bounds, so that its inputs often reach them. */
#ifndef MAX_PAIRS
#define MAX_PAIRS 4096
#endif

/* MAX_ARG_STRLEN in the kernel's linux/binfmts.h: one string of execve, its final NUL included, with 4 KiB pages. */
#ifndef MAX_STRING
#define MAX_STRING (128 * 1024)
#endif

/* Above sysexits.h (64 to 78) and below the shells' 126 to 165, so that applications rarely use the same codes. */
enum exit_code {
    EXIT_USAGE = 80,
    EXIT_CONTAINER_NAME = 81,
    EXIT_NOT_PUBLISHED = 82,
    EXIT_NO_ENV_FILE = 83,
    EXIT_NOT_A_FILE = 84,
    EXIT_TOO_LARGE = 85,
    EXIT_MALFORMED = 86,
    EXIT_SYSTEM = 87,
    /* POSIX, 2.8.2 Exit Status for Commands. */
    EXIT_CANNOT_RUN = 126,
    EXIT_NOT_FOUND = 127,
};

#endif
