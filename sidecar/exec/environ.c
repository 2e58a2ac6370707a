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

static size_t text_length(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0') {
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

static const char *find_value_of(char *const environment[], const char *name, size_t length)
{
    for (size_t at = 0; length > 0 && environment[at] != NULL; at++) {
        if (name_length(environment[at]) == length && same(environment[at], name, length)) {
            return environment[at] + length + 1;
        }
    }
    return NULL;
}

const char *find_value(char *const environment[], const char *name)
{
    return find_value_of(environment, name, text_length(name));
}

/* A text that grows, or is only measured. `unclosed`: no `)` follows, so that it is looked for once only. */
struct output {
    char *into;
    size_t length;
    bool unclosed;
};

/* Bytes before `end_mark` or the text's end. */
static size_t text_span(const char *text, char end_mark)
{
    size_t length = 0;
    while (text[length] != '\0' && text[length] != end_mark) {
        length++;
    }
    return length;
}

static void add(struct output *output, const char *bytes, size_t size)
{
    for (size_t at = 0; output->into != NULL && at < size; at++) {
        output->into[output->length + at] = bytes[at];
    }
    output->length += size;
}

/* Adds what `text`, which begins with a `$`, stands for, and returns how many bytes of it that takes. */
static size_t add_expression(struct output *output, const char *text, char *const environment[])
{
    if (text[1] == '\0') {
        add(output, text, 1);
        return 1;
    }
    if (text[1] == '$') {
        add(output, text, 1);
        return 2;
    }
    size_t name = text[1] == '(' && !output->unclosed ? text_span(text + 2, ')') : 0;
    if (text[1] != '(' || text[2 + name] != ')') {
        output->unclosed = output->unclosed || text[1] == '(';
        add(output, text, 2);
        return 2;
    }
    const char *value = find_value_of(environment, text + 2, name);
    if (value == NULL) {
        add(output, text, name + 3);
    } else {
        add(output, value, text_length(value));
    }
    return name + 3;
}

size_t expand(char *into, const char *text, char *const environment[])
{
    struct output output = {.into = into};
    while (*text != '\0' && output.length <= MAX_STRING) {
        size_t plain = text_span(text, '$');
        add(&output, text, plain);
        text += plain;
        if (*text == '$') {
            text += add_expression(&output, text, environment);
        }
    }
    if (into != NULL) {
        into[output.length] = '\0';
    }
    return output.length;
}

static bool has_dollar(const char *text)
{
    return text[text_span(text, '$')] == '$';
}

bool measure_pairs(struct pairs *pairs, char *const environment[], size_t *size)
{
    *size = 0;
    for (size_t at = 0; at < pairs->count; at++) {
        const char *value = pairs->each[at].text + pairs->each[at].name_length + 1;
        size_t length = pairs->each[at].name_length + 1 + expand(NULL, value, environment) + 1;
        if (has_dollar(value)) {
            *size += length;
        }
        pairs->at = pairs->each[at];
        pairs->at_number = at + 1;
        if (length > MAX_STRING) {
            pairs->fault = FAULT_LONG_STRING;
        } else if (*size > MAX_EXPANDED) {
            pairs->fault = FAULT_LONG_ENVIRONMENT;
        }
        if (pairs->fault != FAULT_NONE) {
            return false;
        }
    }
    return true;
}

void expand_pairs(struct pairs *pairs, char *const environment[], char *memory)
{
    for (size_t at = 0; at < pairs->count; at++) {
        struct pair *pair = &pairs->each[at];
        size_t start = pair->name_length + 1;
        if (has_dollar(pair->text + start)) {
            struct output name = {.into = memory};
            add(&name, pair->text, start);
            size_t length = expand(memory + start, pair->text + start, environment);
            pair->text = memory;
            memory += start + length + 1;
        }
    }
}
