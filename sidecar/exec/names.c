#include "names.h"

#include "contract.h"

static bool is_letter_or_digit(char character)
{
    return (character >= 'a' && character <= 'z') || (character >= '0' && character <= '9');
}

bool is_container_name(const char *name)
{
    size_t length = 0;
    for (; name[length] != '\0'; length++) {
        if (length == MAX_CONTAINER_NAME || (!is_letter_or_digit(name[length]) && name[length] != '-')) {
            return false;
        }
    }
    return length > 0 && name[0] != '-' && name[length - 1] != '-';
}

bool is_variable_name(const char *name, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        if (name[at] < ' ' || name[at] > '~' || name[at] == '=') {
            return false;
        }
    }
    return length > 0;
}
