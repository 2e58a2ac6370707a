/* Which names are names. */
#ifndef MORPHISMS_EXEC_NAMES_H
#define MORPHISMS_EXEC_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* An RFC 1123 label. It becomes a file's name: no dot and no slash means that no path can be made of it. */
bool is_container_name(const char *name);

/* What Kubernetes accepts (RelaxedEnvironmentVariableValidation): printable ASCII without '='; never empty. */
bool is_variable_name(const char *name, size_t length);

#endif
