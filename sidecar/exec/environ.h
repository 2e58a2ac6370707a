/* A file of NAME=VALUE pairs, and an environment that they are merged into. Pure: no system call, no memory of its own. */
#ifndef MORPHISMS_EXEC_ENVIRON_H
#define MORPHISMS_EXEC_ENVIRON_H

#include <stdbool.h>
#include <stddef.h>

#include "contract.h"

enum fault {
    FAULT_NONE,
    FAULT_NO_FINAL_NUL,
    FAULT_NO_EQUALS_SIGN,
    FAULT_EMPTY_NAME,
    FAULT_BAD_NAME,
    FAULT_REPEATED_NAME,
    FAULT_LONG_STRING,
    FAULT_MANY_PAIRS,
};

/* `text` is NAME=VALUE with its NUL, and stays where the file was read to. */
struct pair {
    char *text;
    size_t name_length;
    bool placed;
};

/* `at` is the pair that has the fault; from FAULT_REPEATED_NAME on its name is fit to be shown. */
struct pairs {
    struct pair each[MAX_PAIRS];
    size_t count;
    enum fault fault;
    struct pair at;
    size_t at_number;
};

/* Every pair of `size` bytes, or the first fault. No bytes are no pairs. */
bool parse_pairs(struct pairs *pairs, char *bytes, size_t size);

size_t count_strings(char *const strings[]);

/* A pair replaces the inherited variable of its name, in its place; the others follow in the file's order. All else stays
 * as it was. `merged` has room for both, and the final NULL. */
void merge_environment(char **merged, char *const inherited[], struct pairs *pairs);

/* The first value of `name`, as getenv; NULL when it is not set. */
const char *find_value(char *const environment[], const char *name);

#endif
