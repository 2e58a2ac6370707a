/* The entry point of the C code, like main in other programs. */
#ifndef MORPHISMS_EXEC_START_H
#define MORPHISMS_EXEC_START_H

_Noreturn void become(int argc, char **argv, char **environment);

#endif
