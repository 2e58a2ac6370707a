/* Where C begins: what other programs call main. */
#ifndef MORPHISMS_EXEC_START_H
#define MORPHISMS_EXEC_START_H

_Noreturn void become(int argc, char **argv, char **environment);

#endif
