/* Installs this very program as HELPER_FILE. */
#ifndef MORPHISMS_EXEC_INSTALL_H
#define MORPHISMS_EXEC_INSTALL_H

#include <stddef.h>

/* `error` is 0 or a negated errno, `step` what failed. */
struct installation {
    const char *step;
    long error;
};

/* In one step, and only if a file that is there differs. `memory` takes the program twice. */
struct installation install(char *memory, size_t size);

#endif
