# Writes report.css and report.js as byte arrays into one C file.
# cmake -DASSETS=<folder> -DOUTPUT=<file.c> -P embed.cmake
set(text "/* Generated from report/assets/ by embed.cmake. */\n#include \"report/assets.h\"\n\n")
foreach(kind css js)
    file(READ ${ASSETS}/report.${kind} hex HEX)
    string(LENGTH "${hex}" digits)
    math(EXPR bytes "${digits} / 2")
    string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
    string(APPEND text "const unsigned char mm_report_${kind}[] = {\n${hex}};\n"
        "const size_t mm_report_${kind}_bytes = ${bytes};\n\n")
endforeach()
file(WRITE ${OUTPUT} "${text}")
