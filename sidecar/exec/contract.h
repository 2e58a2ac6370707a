/* The contract with the sidecar, the webhook and readers of the exit codes. README.md describes it. */
#ifndef MORPHISMS_EXEC_CONTRACT_H
#define MORPHISMS_EXEC_CONTRACT_H

/* Test builds override the values in #ifndef. In a shipped binary they are constants: no image, manifest or secret can
 * change the folder or the deadline. */
#ifndef RUN_DIRECTORY
#define RUN_DIRECTORY "/morphisms/run"
#endif

/* Behind a hook (--install), the application's container starts while morphisms-init works. Behind an init container
 * that ends, or a startup probe, the wait is zero unless a kubelet or host starts containers out of order. It is longer
 * than any deadline of morphisms-init (at most 500 s), which reports its own failures. It is bounded: a container that
 * hangs reports nothing. */
#ifndef WAIT_MILLISECONDS
#define WAIT_MILLISECONDS 600000
#endif

#define READY_FILE RUN_DIRECTORY "/ready"
#define HELPER_FILE RUN_DIRECTORY "/exec"
/* The number of the process follows. Not with two dots in front: morphisms-init sweeps such names meanwhile. */
#define NEW_HELPER_FILE RUN_DIRECTORY "/.exec."
/* As morphisms-init publishes it: its group is the pod's fsGroup, by the volume's set-group-id bit. */
#define HELPER_MODE 0550
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
    /* Of --install, in morphisms-init's container. */
    EXIT_NOT_INSTALLED = 88,
    /* POSIX, 2.8.2 Exit Status for Commands. */
    EXIT_CANNOT_RUN = 126,
    EXIT_NOT_FOUND = 127,
    /* Plus the number of the signal that ended the wait, as shells and container runtimes count. */
    EXIT_SIGNAL = 128,
};

#endif
