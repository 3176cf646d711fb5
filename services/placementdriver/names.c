#include "placementdriver/names.h"

#include "base/limits.h"
#include "net/address.h"

enum { SHORT_TEXT_SIZE_MAX = 128 };

static bool is_name_byte(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_' || byte == '.' || byte == '-';
}

static enum status check_part(struct str part, const char *what, struct error *error)
{
    if (part.len == 0 || part.len > LIMIT_COLLECTION_NAME_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "name: %s has %zu bytes, 1 to %d are allowed", what,
                         part.len, LIMIT_COLLECTION_NAME_SIZE_MAX);
    for (size_t i = 0; i < part.len; i++) {
        if (!is_name_byte(part.data[i]))
            return error_set(error, STATUS_INVALID,
                             "name: byte %zu of %s is none of A-Z a-z 0-9 _ . -", i + 1, what);
    }
    return STATUS_OK;
}

enum status check_collection_name(struct str name, struct error *error)
{
    if (!str_contains(name, STR("/")))
        return check_part(name, "the collection's name", error);
    struct str rest = name;
    struct str owner = str_cut(&rest, '/');
    TRY(check_part(owner, "the owner's id", error));
    return check_part(rest, "the collection's name", error);
}

enum status check_reachable_address(struct str address, const char *field, struct error *error)
{
    struct address parsed;
    enum status status = address_parse(address, error, &parsed);
    if (status != STATUS_OK)
        return error_prefix(error, status, "%s", field);
    if (parsed.host[0] == '\0')
        return error_set(error, STATUS_INVALID, "%s: %.*s names no host that others could reach",
                         field, STR_ARG(address));
    return STATUS_OK;
}

enum status check_short_text(struct str text, const char *field, struct error *error)
{
    if (text.len > SHORT_TEXT_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "%s has %zu bytes, the limit is %d", field,
                         text.len, SHORT_TEXT_SIZE_MAX);
    return STATUS_OK;
}
