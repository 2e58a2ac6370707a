/* Validity of names. */
#ifndef MORPHISMS_EXEC_NAMES_H
#define MORPHISMS_EXEC_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* An RFC 1123 label. It becomes a file name; without dots and slashes it cannot form another path. */
bool is_container_name(const char *name);

/* A name that Kubernetes accepts (RelaxedEnvironmentVariableValidation): printable ASCII without '='; never empty. */
bool is_variable_name(const char *name, size_t length);

#endif
