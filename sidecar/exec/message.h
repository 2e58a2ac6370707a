/* One line for people, composed without a C library. Pure. Values of variables never come here, only names and reasons. */
#ifndef MORPHISMS_EXEC_MESSAGE_H
#define MORPHISMS_EXEC_MESSAGE_H

#include <stddef.h>

/* Enough for every line of ours: cut, never overrun. */
#define MAX_MESSAGE 512
/* What is shown of a name that somebody else chose. */
#define MAX_SHOWN 63

struct message {
    char text[MAX_MESSAGE];
    size_t length;
};

/* Our own words. */
void add_text(struct message *message, const char *text);

/* Somebody else's: whatever is not printable ASCII becomes '?', so that it can neither break the line nor the terminal. */
void add_shown(struct message *message, const char *text, size_t length);

void add_number(struct message *message, unsigned long number);

#endif
