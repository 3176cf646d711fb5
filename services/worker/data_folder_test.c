#include "worker/data_folder.h"

#include <stdio.h>
#include <string.h>

#include "testing/test.h"

TEST(a_folder_has_one_user_and_one_identity)
{
    char path[4200];
    char identity[IDENTITY_SIZE + 1];
    struct data_folder first;
    struct data_folder second;
    struct error error;
    (void)snprintf(path, sizeof(path), "%s/deep/er", test_temporary_folder());
    REQUIRE_OK(data_folder_open(&first, str_from_cstr(path), &error));
    CHECK_EQ_U64(strlen(first.identity), IDENTITY_SIZE);
    memcpy(identity, first.identity, sizeof(identity));
    CHECK_STATUS(data_folder_open(&second, str_from_cstr(path), &error), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("in use by another worker"));
    CHECK_CONTAINS(str_from_cstr(error.text), str_from_cstr(path));
    data_folder_close(&second);
    data_folder_close(&first);
    REQUIRE_OK(data_folder_open(&first, str_from_cstr(path), &error));
    CHECK_CSTR(first.identity, identity);
    data_folder_close(&first);
}

TEST(a_broken_identity_is_an_error)
{
    char path[4200];
    struct data_folder folder;
    struct error error;
    const char *parent = test_temporary_folder();
    (void)snprintf(path, sizeof(path), "%s/identity", parent);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    (void)fputs("0123", file);
    (void)fclose(file);
    CHECK_STATUS(data_folder_open(&folder, str_from_cstr(parent), &error), STATUS_CORRUPT);
    data_folder_close(&folder);
    CHECK_STATUS(data_folder_open(&folder, STR("/proc/no/such"), &error), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("/proc/no"));
    data_folder_close(&folder);
    CHECK_STATUS(data_folder_open(&folder, STR(""), &error), STATUS_INVALID);
    data_folder_close(&folder);
}

TEST_MAIN()
