#include "lookup.h"

static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

static char *append(char *end, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        *end++ = bytes[at];
    }
    return end;
}

bool has_slash(const char *command)
{
    for (; *command != '\0'; command++) {
        if (*command == '/') {
            return true;
        }
    }
    return false;
}

struct lookup start_lookup(const char *command, const char *path)
{
    return (struct lookup){.command = command, .rest = path == NULL ? DEFAULT_PATH : path};
}

bool next_candidate(struct lookup *lookup, char *candidate, size_t size)
{
    size_t command = length_of(lookup->command);
    while (lookup->rest != NULL) {
        const char *directory = lookup->rest;
        size_t length = 0;
        while (directory[length] != ':' && directory[length] != '\0') {
            length++;
        }
        lookup->rest = directory[length] == ':' ? directory + length + 1 : NULL;

        /* An empty entry is the working directory (POSIX, 8.3): the command alone, without a slash before it. */
        size_t slash = length > 0 ? 1 : 0;
        if (length < size && command < size - length && slash + 1 <= size - length - command) {
            char *end = append(candidate, directory, length);
            end = append(end, "/", slash);
            end = append(end, lookup->command, command);
            *end = '\0';
            return true;
        }
    }
    return false;
}
