# Writes the SQL files of schemas/ as byte arrays into one C file.
# cmake -DSCHEMAS=<folder> -DOUTPUT=<file.c> -P embed_sql.cmake
function(bytes_of file out)
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
    set(${out} "${hex}0x00" PARENT_SCOPE)
endfunction()

file(GLOB migrations ${SCHEMAS}/[0-9][0-9][0-9][0-9]_*.sql)
list(SORT migrations)
set(text "/* Generated from schemas/ by store/embed_sql.cmake. */\n#include \"store/schema.h\"\n\n")
set(table "")
set(expected 1)
foreach(file ${migrations})
    get_filename_component(name ${file} NAME_WE)
    string(SUBSTRING ${name} 0 4 number)
    string(REGEX REPLACE "^0+" "" number ${number})
    if(NOT number EQUAL expected)
        message(FATAL_ERROR "${file}: migration ${expected} was expected here")
    endif()
    math(EXPR expected "${expected} + 1")
    bytes_of(${file} bytes)
    string(APPEND text "static const unsigned char sql_${number}[] = {\n${bytes}};\n\n")
    string(APPEND table "    {${number}, \"${name}\", (const char *)sql_${number}},\n")
endforeach()
math(EXPR count "${expected} - 1")
bytes_of(${SCHEMAS}/views.sql bytes)
string(APPEND text "static const unsigned char sql_views[] = {\n${bytes}};\n\n"
    "const char *const mm_schema_views = (const char *)sql_views;\n"
    "const mm_migration mm_schema_migrations[] = {\n${table}};\n"
    "const int32_t mm_schema_migration_count = ${count};\n")
file(WRITE ${OUTPUT} "${text}")
