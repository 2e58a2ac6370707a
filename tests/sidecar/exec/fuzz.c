/* Random input for everything of the helper that reads what somebody else wrote, beside a second, plainer statement of
 * what it should answer. Blocks have exactly the size they are used with, so that the address sanitizer sees one byte too
 * many. The build makes MAX_PAIRS, MAX_STRING and MAX_EXPANDED small, so that the bounds are met often.
 *
 *   fuzz COUNT [SEED]     the same inputs for the same numbers
 *
 * With clang, -DLIBFUZZER -fsanitize=fuzzer makes a libFuzzer target of the same checks. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../sidecar/exec/contract.h"
#include "../../../sidecar/exec/environ.h"
#include "../../../sidecar/exec/lookup.h"
#include "../../../sidecar/exec/message.h"
#include "../../../sidecar/exec/names.h"

#define MAX_STRINGS 64

static struct pairs pairs;
static unsigned long accepted;
static unsigned long expanded;

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "fuzz: line %d: not so: %s\n", __LINE__, #condition);            \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

static void *block(size_t size)
{
    void *memory = malloc(size);
    CHECK(memory != NULL || size == 0);
    return memory;
}

static char *text_of(const uint8_t *bytes, size_t size)
{
    char *text = block(size + 1);
    if (size > 0) {
        memcpy(text, bytes, size);
    }
    text[size] = '\0';
    return text;
}

static bool name_matches(const char *one, const char *other)
{
    size_t length = strcspn(other, "=");
    return other[length] == '=' && strncmp(one, other, length + 1) == 0;
}

/* The same judgement as parse_pairs, over a copy that is split first. */
static bool should_accept(const uint8_t *bytes, size_t size)
{
    if (size == 0) {
        return true;
    }
    if (bytes[size - 1] != '\0') {
        return false;
    }
    size_t count = 0;
    const char *seen[MAX_PAIRS + 1];
    for (const char *at = (const char *)bytes; at < (const char *)bytes + size; at += strlen(at) + 1) {
        size_t name = strcspn(at, "=");
        if (count == MAX_PAIRS || at[name] != '=' || name == 0) {
            return false;
        }
        for (size_t each = 0; each < name; each++) {
            if ((unsigned char)at[each] < 0x20 || (unsigned char)at[each] > 0x7e) {
                return false;
            }
        }
        for (size_t each = 0; each < count; each++) {
            if (name_matches(seen[each], at)) {
                return false;
            }
        }
        seen[count++] = at;
    }
    return true;
}

static bool is_first(char *const strings[], size_t at)
{
    for (size_t before = 0; before < at; before++) {
        if (name_matches(strings[before], strings[at])) {
            return false;
        }
    }
    return true;
}

/* What merge_environment should answer: built by removing, then appending, where that one walks once. */
static size_t expected_merge(char **expected, char *const inherited[])
{
    size_t count = 0;
    for (size_t at = 0; inherited[at] != NULL; at++) {
        char *chosen = inherited[at];
        for (size_t each = 0; each < pairs.count; each++) {
            if (name_matches(pairs.each[each].text, inherited[at])) {
                chosen = is_first(inherited, at) ? pairs.each[each].text : NULL;
            }
        }
        if (chosen != NULL) {
            expected[count++] = chosen;
        }
    }
    for (size_t each = 0; each < pairs.count; each++) {
        bool replaced = false;
        for (size_t at = 0; inherited[at] != NULL; at++) {
            replaced = replaced || name_matches(inherited[at], pairs.each[each].text);
        }
        if (!replaced) {
            expected[count++] = pairs.each[each].text;
        }
    }
    return count;
}

static void check_merge(char *const inherited[])
{
    size_t room = count_strings(inherited) + pairs.count + 1;
    char **merged = block(room * sizeof(char *));
    char **expected = block(room * sizeof(char *));
    merge_environment(merged, inherited, &pairs);
    size_t count = expected_merge(expected, inherited);
    CHECK(count_strings(merged) == count);
    for (size_t at = 0; at < count; at++) {
        CHECK(merged[at] == expected[at]);
    }
    for (size_t each = 0; each < pairs.count; each++) {
        char *name = text_of((uint8_t *)pairs.each[each].text, pairs.each[each].name_length);
        CHECK(find_value(merged, name) == pairs.each[each].text + pairs.each[each].name_length + 1);
        free(name);
    }
    free(merged);
    free(expected);
}

/* The answer of Kubernetes' Expand, stated over the operators instead of the text between them. */
static char *expected_expansion(const char *text, char *const environment[])
{
    size_t room = 1;
    for (size_t at = 0; environment[at] != NULL; at++) {
        room += strlen(environment[at]);
    }
    char *answer = block(strlen(text) * (room + 1) + 1);
    answer[0] = '\0';
    for (const char *at = text; *at != '\0';) {
        const char *operator= strchr(at, '$');
        if (operator== NULL || operator[1] == '\0') {
            strcat(answer, at);
            break;
        }
        strncat(answer, at, (size_t)(operator- at));
        const char *closer = operator[1] == '(' ? strchr(operator, ')') : NULL;
        if (operator[1] == '$') {
            strcat(answer, "$");
            at = operator+ 2;
        } else if (closer == NULL) {
            strncat(answer, operator, 2);
            at = operator+ 2;
        } else {
            char *name = text_of((const uint8_t *)operator+ 2, (size_t)(closer - operator) - 2);
            const char *value = NULL;
            for (size_t each = 0; environment[each] != NULL && value == NULL; each++) {
                size_t length = strcspn(environment[each], "=");
                if (length > 0 && environment[each][length] == '=' && strlen(name) == length &&
                    strncmp(environment[each], name, length) == 0) {
                    value = environment[each] + length + 1;
                }
            }
            if (value != NULL) {
                strcat(answer, value);
            } else {
                strncat(answer, operator, (size_t)(closer - operator) + 1);
            }
            free(name);
            at = closer + 1;
        }
    }
    return answer;
}

/* Every pair as the second statement has it, in memory of exactly the size that was measured. */
static void check_expansion(char *const inherited[])
{
    char *expected[MAX_PAIRS];
    bool fits = true;
    size_t total = 0;
    for (size_t at = 0; at < pairs.count; at++) {
        const char *value = pairs.each[at].text + pairs.each[at].name_length + 1;
        expected[at] = expected_expansion(value, inherited);
        size_t length = pairs.each[at].name_length + 1 + strlen(expected[at]) + 1;
        total += strchr(value, '$') != NULL ? length : 0;
        fits = fits && length <= MAX_STRING && total <= MAX_EXPANDED;
    }
    size_t size;
    CHECK(measure_pairs(&pairs, inherited, &size) == fits);
    CHECK(fits == (pairs.fault == FAULT_NONE));
    char *memory = NULL;
    if (fits) {
        CHECK(size == total);
        memory = block(size);
        expand_pairs(&pairs, inherited, memory);
        for (size_t at = 0; at < pairs.count; at++) {
            CHECK(strcmp(pairs.each[at].text + pairs.each[at].name_length + 1, expected[at]) == 0);
            expanded += pairs.each[at].text >= memory && pairs.each[at].text < memory + size;
        }
        check_merge(inherited);
    }
    for (size_t at = 0; at < pairs.count; at++) {
        free(expected[at]);
    }
    free(memory);
}

static void check_environment(const uint8_t *bytes, size_t size, const uint8_t *more, size_t more_size)
{
    char *file = block(size);
    if (size > 0) {
        memcpy(file, bytes, size);
    }
    bool accept = parse_pairs(&pairs, file, size);
    CHECK(accept == should_accept((uint8_t *)file, size));
    CHECK(accept == (pairs.fault == FAULT_NONE));
    if (accept) {
        accepted++;
        char *inherited[MAX_STRINGS + 1];
        char *text = text_of(more, more_size);
        size_t count = 0;
        for (char *at = text; at < text + more_size && count < MAX_STRINGS; at += strlen(at) + 1) {
            inherited[count++] = at;
        }
        inherited[count] = NULL;
        check_expansion(inherited);
        free(text);
    } else if (pairs.fault >= FAULT_REPEATED_NAME) {
        CHECK(is_variable_name(pairs.at.text, pairs.at.name_length));
    }
    free(file);
}

static void check_lookup(const char *command, const char *path, size_t size)
{
    struct lookup lookup = start_lookup(command, path);
    char *rest = strdup(path);
    char *next = rest;
    char *candidate = block(size);
    for (char *directory = strsep(&next, ":"); directory != NULL; directory = strsep(&next, ":")) {
        char *expected = block(strlen(directory) + strlen(command) + 2);
        sprintf(expected, "%s%s%s", directory, *directory == '\0' ? "" : "/", command);
        if (strlen(expected) < size) {
            CHECK(next_candidate(&lookup, candidate, size));
            CHECK(strcmp(candidate, expected) == 0);
        }
        free(expected);
    }
    CHECK(!next_candidate(&lookup, candidate, size));
    CHECK(has_slash(command) == (strchr(command, '/') != NULL));
    free(candidate);
    free(rest);
}

static void check_message(const uint8_t *bytes, size_t size)
{
    struct message *message = calloc(1, sizeof(struct message));
    CHECK(message != NULL);
    for (size_t times = 0; times < 20; times++) {
        add_shown(message, (const char *)bytes, size);
        add_number(message, size * 1234567891UL);
    }
    CHECK(message->length <= MAX_MESSAGE);
    for (size_t at = 0; at < message->length; at++) {
        CHECK(message->text[at] >= ' ' && message->text[at] <= '~');
    }
    free(message);
}

static void check_container(const char *name)
{
    size_t length = strlen(name);
    bool expected = length >= 1 && length <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == length &&
                    name[0] != '-' && name[length - 1] != '-';
    CHECK(is_container_name(name) == expected);
}

/* The first byte cuts the rest in two: a file and an inherited environment, a command and a PATH. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t first = size == 1 ? 0 : bytes[0] % size;
    const uint8_t *rest = bytes + 1 + first;
    size_t rest_size = size - 1 - first;
    char *one = text_of(bytes + 1, first);
    char *other = text_of(rest, rest_size);
    check_environment(bytes + 1, first, rest, rest_size);
    check_lookup(one, other, 1 + bytes[0] % 40);
    check_message(bytes + 1, first);
    check_container(one);
    free(one);
    free(other);
    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint64_t random_number(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* NAME=VALUE and its NUL, VALUE of what an expansion is made of. */
static size_t write_pair(uint8_t *input, char name)
{
    static const char *const parts[] = {"$", "$$", "$(A)", "$(B)", "$(", ")", "(A)", "x", "A", ""};
    size_t size = 0;
    input[size++] = (uint8_t)name;
    input[size++] = '=';
    for (size_t count = random_number() % 4; count > 0; count--) {
        const char *part = parts[random_number() % 10];
        memcpy(input + size, part, strlen(part));
        size += strlen(part);
    }
    input[size++] = '\0';
    return size;
}

/* A file of two pairs, cut from an environment of two. */
static size_t write_pairs(uint8_t *input)
{
    size_t first = write_pair(input + 1, 'C');
    first += write_pair(input + 1 + first, 'A');
    size_t size = 1 + first + write_pair(input + 1 + first, 'A');
    size += write_pair(input + size, 'B');
    input[0] = (uint8_t)first;
    return size;
}

int main(int argc, char **argv)
{
    static const char alphabet[] = {'A', 'B', '=', '=', '\0', '\0', '\0', '$', '(', ')', '$',
                                    ' ', '\n', (char)0x80, '/', ':', 'a', '-'};
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 20240917;
    uint8_t input[256];
    for (unsigned long at = 0; at < count; at++) {
        size_t size = 1 + random_number() % (at % 16 == 0 ? sizeof(input) : 48);
        size_t letters = at % 3 == 0 ? sizeof(alphabet) : at % 3 == 1 ? 7 : 11;
        input[0] = (uint8_t)random_number();
        for (size_t each = 1; each < size; each++) {
            input[each] = (uint8_t)alphabet[random_number() % letters];
        }
        if (at % 4 == 0) {
            size = write_pairs(input);
        }
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("%lu inputs, %lu files accepted, %lu pairs expanded\n", count, accepted, expanded);
    return 0;
}
#endif
