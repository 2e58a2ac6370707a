#include "message.h"

static void add(struct message *message, char character)
{
    if (message->length < MAX_MESSAGE) {
        message->text[message->length++] = character;
    }
}

void add_text(struct message *message, const char *text)
{
    for (; *text != '\0'; text++) {
        add(message, *text);
    }
}

void add_shown(struct message *message, const char *text, size_t length)
{
    for (size_t at = 0; at < length && text[at] != '\0'; at++) {
        if (at == MAX_SHOWN) {
            add_text(message, "...");
            return;
        }
        add(message, text[at] < ' ' || text[at] > '~' ? '?' : text[at]);
    }
}

void add_number(struct message *message, unsigned long number)
{
    if (number >= 10) {
        add_number(message, number / 10);
    }
    add(message, (char)('0' + number % 10));
}
