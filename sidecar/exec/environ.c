#include "environ.h"

#include "names.h"

/* Bytes before `end_mark`, at most `size`. */
static size_t span(const char *bytes, size_t size, char end_mark)
{
    size_t length = 0;
    while (length < size && bytes[length] != end_mark) {
        length++;
    }
    return length;
}

static bool same(const char *one, const char *other, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        if (one[at] != other[at]) {
            return false;
        }
    }
    return true;
}

static struct pair *find_pair(struct pairs *pairs, const char *name, size_t length)
{
    for (size_t at = 0; at < pairs->count; at++) {
        struct pair *pair = &pairs->each[at];
        if (pair->name_length == length && same(pair->text, name, length)) {
            return pair;
        }
    }
    return NULL;
}

/* The fault of the pair in `pairs->at`. `length` excludes its NUL; `left` counts the bytes to the end of the file. */
static enum fault fault_of(struct pairs *pairs, size_t length, size_t left)
{
    const struct pair *pair = &pairs->at;
    if (length == left) {
        return FAULT_NO_FINAL_NUL;
    }
    if (pair->name_length == length) {
        return FAULT_NO_EQUALS_SIGN;
    }
    if (pair->name_length == 0) {
        return FAULT_EMPTY_NAME;
    }
    if (!is_variable_name(pair->text, pair->name_length)) {
        return FAULT_BAD_NAME;
    }
    /* The helper cannot know which of the two is meant, and programs differ in the one that they read. */
    if (find_pair(pairs, pair->text, pair->name_length) != NULL) {
        return FAULT_REPEATED_NAME;
    }
    if (length + 1 > MAX_STRING) {
        return FAULT_LONG_STRING;
    }
    if (pairs->count == MAX_PAIRS) {
        return FAULT_MANY_PAIRS;
    }
    return FAULT_NONE;
}

bool parse_pairs(struct pairs *pairs, char *bytes, size_t size)
{
    pairs->count = 0;
    pairs->fault = FAULT_NONE;
    for (size_t offset = 0; offset < size;) {
        size_t left = size - offset;
        size_t length = span(bytes + offset, left, '\0');
        pairs->at.text = bytes + offset;
        pairs->at.name_length = span(bytes + offset, length, '=');
        pairs->at.placed = false;
        pairs->at_number = pairs->count + 1;
        pairs->fault = fault_of(pairs, length, left);
        if (pairs->fault != FAULT_NONE) {
            return false;
        }
        pairs->each[pairs->count++] = pairs->at;
        offset += length + 1;
    }
    return true;
}

size_t count_strings(char *const strings[])
{
    size_t count = 0;
    while (strings[count] != NULL) {
        count++;
    }
    return count;
}

/* The length of the name in NAME=VALUE; 0 if the text is not a variable. */
static size_t name_length(const char *text)
{
    size_t length = 0;
    while (text[length] != '=') {
        if (text[length] == '\0') {
            return 0;
        }
        length++;
    }
    return length;
}

void merge_environment(char **merged, char *const inherited[], struct pairs *pairs)
{
    size_t count = 0;
    for (size_t at = 0; inherited[at] != NULL; at++) {
        struct pair *pair = find_pair(pairs, inherited[at], name_length(inherited[at]));
        if (pair == NULL) {
            merged[count++] = inherited[at];
        } else if (!pair->placed) {
            merged[count++] = pair->text;
            pair->placed = true;
        }
        /* A second inherited variable of that name is dropped: some programs would read it instead of the secret. */
    }
    for (size_t at = 0; at < pairs->count; at++) {
        if (!pairs->each[at].placed) {
            merged[count++] = pairs->each[at].text;
        }
    }
    merged[count] = NULL;
}

const char *find_value(char *const environment[], const char *name)
{
    size_t length = 0;
    while (name[length] != '\0') {
        length++;
    }
    for (size_t at = 0; environment[at] != NULL; at++) {
        if (name_length(environment[at]) == length && same(environment[at], name, length)) {
            return environment[at] + length + 1;
        }
    }
    return NULL;
}
