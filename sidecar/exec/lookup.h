/* The candidates for a command without a slash: each directory of PATH in order, as POSIX defines for execvp. Pure. */
#ifndef MORPHISMS_EXEC_LOOKUP_H
#define MORPHISMS_EXEC_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>

/* The PATH that container runtimes set if the image has none (the default of containerd and Docker). */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct lookup {
    const char *command;
    const char *rest; /* the rest of PATH; NULL after its last directory */
};

bool has_slash(const char *command);

/* `path` is the value of PATH, NULL when it is unset. */
struct lookup start_lookup(const char *command, const char *path);

/* The next candidate, at most `size` bytes with its NUL. A longer one is skipped: the kernel would refuse it. */
bool next_candidate(struct lookup *lookup, char *candidate, size_t size);

#endif
