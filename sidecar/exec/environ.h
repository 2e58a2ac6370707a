/* Parses a file of NAME=VALUE pairs and merges them into an environment. Pure: no system calls, no own memory. */
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
    FAULT_LONG_ENVIRONMENT,
};

/* `text` points to NAME=VALUE and its NUL, in the buffer of the file or where it was expanded. */
struct pair {
    char *text;
    size_t name_length;
    bool placed;
};

/* `at` is the pair with the fault. From FAULT_REPEATED_NAME on, its name is valid and may be shown. */
struct pairs {
    struct pair each[MAX_PAIRS];
    size_t count;
    enum fault fault;
    struct pair at;
    size_t at_number;
};

/* Parses all pairs in `size` bytes; false at the first fault. Zero bytes give zero pairs. */
bool parse_pairs(struct pairs *pairs, char *bytes, size_t size);

/* Kubernetes' expansion (third_party/forked/golang/expansion): `$$` is `$`, `$(NAME)` the value of NAME, as it is, in
 * `environment`; an unknown NAME and every other `$` stay. Returns the length of the result without its NUL, and writes
 * both unless `into` is NULL; stops counting beyond MAX_STRING. */
size_t expand(char *into, const char *text, char *const environment[]);

/* The bytes that expand_pairs needs; false at the first pair that becomes too long. */
bool measure_pairs(struct pairs *pairs, char *const environment[], size_t *size);

/* Expands the values of all pairs into `memory`; a pair without `$` stays where it is. */
void expand_pairs(struct pairs *pairs, char *const environment[], char *memory);

size_t count_strings(char *const strings[]);

/* A pair replaces the inherited variable of its name at the same position; new ones follow in the file's order. The
 * other variables stay. `merged` has room for both, and for the final NULL. */
void merge_environment(char **merged, char *const inherited[], struct pairs *pairs);

/* The first value of `name`, as getenv; NULL when it is not set. */
const char *find_value(char *const environment[], const char *name);

#endif
