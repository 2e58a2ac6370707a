/* What the helper shares with the sidecar, the webhook and whoever reads an exit code. README.md says it in words. */
#ifndef MORPHISMS_EXEC_CONTRACT_H
#define MORPHISMS_EXEC_CONTRACT_H

/* The test builds override the two values in #ifndef. A shipped binary holds them as constants: nothing that an image, a
 * manifest or a secret can set moves the folder or the deadline. */
#ifndef RUN_DIRECTORY
#define RUN_DIRECTORY "/morphisms/run"
#endif

/* morphisms-init ends, or answers its startup probe, before this program starts, so the wait is normally zero. It exists
 * for a kubelet or host that starts containers out of order, and must end: a container that hangs tells nobody why. */
#ifndef WAIT_MILLISECONDS
#define WAIT_MILLISECONDS 60000
#endif

#define READY_FILE RUN_DIRECTORY "/ready"
#define ENV_FOLDER RUN_DIRECTORY "/env/"

/* Where Kubernetes collects a container's last words (terminationMessagePath). A measured agent policy may keep logs
 * from leaving the guest; then this is the only line that people see. */
#define TERMINATION_LOG "/dev/termination-log"

/* Of an RFC 1123 label, which a container's name is. */
#define MAX_CONTAINER_NAME 63

#define MAX_FILE (1024 * 1024)

/* The fuzzer's build makes these two small, so that it meets them often. */
#ifndef MAX_PAIRS
#define MAX_PAIRS 4096
#endif

/* MAX_ARG_STRLEN in the kernel's linux/binfmts.h: one string of execve, its final NUL included, with 4 KiB pages. */
#ifndef MAX_STRING
#define MAX_STRING (128 * 1024)
#endif

/* Above sysexits.h (64 to 78) and below the shells' 126 to 165, so that they are rarely an application's own. */
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
