/* Composes one line for users, without a C library. Pure. It takes names and reasons, never values of variables. */
#ifndef MORPHISMS_EXEC_MESSAGE_H
#define MORPHISMS_EXEC_MESSAGE_H

#include <stddef.h>

/* Enough for every line; a longer one is cut. */
#define MAX_MESSAGE 512
/* The shown length of a name that the helper did not choose. */
#define MAX_SHOWN 63

struct message {
    char text[MAX_MESSAGE];
    size_t length;
};

/* Text of the helper itself. */
void add_text(struct message *message, const char *text);

/* Text from outside: characters other than printable ASCII become '?', so that it cannot break the line or terminal. */
void add_shown(struct message *message, const char *text, size_t length);

void add_number(struct message *message, unsigned long number);

#endif
