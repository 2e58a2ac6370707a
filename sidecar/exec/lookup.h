/* Where a command without a slash may be: each directory of PATH in turn, as POSIX has it for execvp. Pure. */
#ifndef MORPHISMS_EXEC_LOOKUP_H
#define MORPHISMS_EXEC_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>

/* What container runtimes set when an image has no PATH (containerd's and Docker's default). */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct lookup {
    const char *command;
    const char *rest; /* of PATH; NULL when its last directory was tried */
};

bool has_slash(const char *command);

/* `path` is the value of PATH, NULL when it is unset. */
struct lookup start_lookup(const char *command, const char *path);

/* The next candidate, at most `size` bytes with its NUL. One that is longer is passed over: the kernel would refuse it. */
bool next_candidate(struct lookup *lookup, char *candidate, size_t size);

#endif
