/* Words of the self-made data and the phrases made of them. The tables are the vocabulary; the
 * order of their entries decides what a seed gives, so new words go to the end. */
#include "core/data/synth_words.h"

#include <string.h>

const mm_noun mm_animals[MM_ANIMALS] = {
    {"狐狸", "只", "fox", "foxes"},          {"兔子", "只", "rabbit", "rabbits"},
    {"猫头鹰", "只", "owl", "owls"},         {"小熊", "头", "bear", "bears"},
    {"松鼠", "只", "squirrel", "squirrels"}, {"刺猬", "只", "hedgehog", "hedgehogs"},
    {"乌龟", "只", "turtle", "turtles"},     {"小狗", "条", "dog", "dogs"},
    {"小猫", "只", "cat", "cats"},           {"老鼠", "只", "mouse", "mice"},
    {"鸭子", "只", "duck", "ducks"},         {"小马", "匹", "pony", "ponies"},
    {"山羊", "只", "goat", "goats"},         {"青蛙", "只", "frog", "frogs"},
    {"大象", "头", "elephant", "elephants"}, {"猴子", "只", "monkey", "monkeys"},
    {"企鹅", "只", "penguin", "penguins"},   {"小鹿", "头", "deer", "deer"},
    {"乌鸦", "只", "crow", "crows"},         {"水獭", "只", "otter", "otters"}};

const mm_noun mm_objects[MM_OBJECTS] = {{"风筝", "只", "kite", "kites"},
                                        {"雨伞", "把", "umbrella", "umbrellas"},
                                        {"帽子", "顶", "hat", "hats"},
                                        {"围巾", "条", "scarf", "scarves"},
                                        {"皮球", "个", "ball", "balls"},
                                        {"灯笼", "盏", "lantern", "lanterns"},
                                        {"杯子", "只", "cup", "cups"},
                                        {"钥匙", "把", "key", "keys"},
                                        {"铃铛", "个", "bell", "bells"},
                                        {"篮子", "个", "basket", "baskets"},
                                        {"笛子", "支", "flute", "flutes"},
                                        {"木船", "条", "wooden boat", "wooden boats"},
                                        {"手套", "只", "glove", "gloves"},
                                        {"毯子", "条", "blanket", "blankets"},
                                        {"画笔", "支", "brush", "brushes"},
                                        {"盒子", "个", "box", "boxes"},
                                        {"纽扣", "颗", "button", "buttons"},
                                        {"面具", "个", "mask", "masks"},
                                        {"鼓", "面", "drum", "drums"},
                                        {"信封", "个", "envelope", "envelopes"},
                                        {"陀螺", "个", "spinning top", "spinning tops"},
                                        {"靴子", "只", "boot", "boots"},
                                        {"水壶", "把", "kettle", "kettles"},
                                        {"旗子", "面", "flag", "flags"}};

const mm_noun mm_things[MM_THINGS] = {
    {"苹果", "个", "apple", "apples"},    {"梨", "个", "pear", "pears"},
    {"鸡蛋", "个", "egg", "eggs"},        {"叶子", "片", "leaf", "leaves"},
    {"石头", "块", "stone", "stones"},    {"花", "朵", "flower", "flowers"},
    {"贝壳", "枚", "shell", "shells"},    {"饼干", "块", "biscuit", "biscuits"},
    {"樱桃", "颗", "cherry", "cherries"}, {"蜡烛", "支", "candle", "candles"},
    {"书", "本", "book", "books"},        {"硬币", "枚", "coin", "coins"},
    {"坚果", "颗", "nut", "nuts"},        {"羽毛", "根", "feather", "feathers"},
    {"土豆", "个", "potato", "potatoes"}, {"星星", "颗", "star", "stars"}};

const mm_pair mm_colours[MM_COLOURS] = {
    {{"红色", "red"}},  {{"橙色", "orange"}}, {{"黄色", "yellow"}}, {{"绿色", "green"}},
    {{"蓝色", "blue"}}, {{"紫色", "purple"}}, {{"白色", "white"}},  {{"黑色", "black"}},
    {{"灰色", "grey"}}, {{"金色", "golden"}}};

const mm_pair mm_places[MM_PLACES] = {
    {{"森林里", "in the forest"}},    {{"河边", "by the river"}},
    {{"海滩上", "on the beach"}},     {{"花园里", "in the garden"}},
    {{"山坡上", "on the hillside"}},  {{"集市上", "at the market"}},
    {{"果园里", "in the orchard"}},   {{"湖边", "by the lake"}},
    {{"草地上", "in the meadow"}},    {{"学校里", "at school"}},
    {{"车站旁", "near the station"}}, {{"村子里", "in the village"}},
    {{"图书馆里", "in the library"}}, {{"磨坊旁", "beside the mill"}}};

const mm_pair mm_spots[MM_SPOTS] = {
    {{"桥下面", "under the bridge"}},        {{"大树后面", "behind the big tree"}},
    {{"井边", "next to the well"}},          {{"屋顶上", "on the roof"}},
    {{"草堆里", "in the haystack"}},         {{"楼梯下", "under the stairs"}},
    {{"石墙后面", "behind the stone wall"}}, {{"老柜子里", "in the old cupboard"}},
    {{"长椅下面", "under the bench"}},       {{"门口", "at the front door"}},
    {{"木桶里", "inside the barrel"}},       {{"窗台上", "on the windowsill"}},
    {{"推车下面", "under the cart"}},        {{"芦苇丛中", "among the reeds"}},
    {{"山洞里", "inside the cave"}},         {{"篱笆旁", "beside the fence"}}};

const mm_pair mm_elders[MM_ELDERS] = {
    {{"面包师", "the baker"}}, {{"老渔夫", "the old fisherman"}}, {{"奶奶", "Grandmother"}},
    {{"爷爷", "Grandfather"}}, {{"木匠", "the carpenter"}},       {{"邮递员", "the postman"}},
    {{"老师", "the teacher"}}, {{"农夫", "the farmer"}},          {{"裁缝", "the tailor"}},
    {{"船长", "the captain"}}, {{"园丁", "the gardener"}},        {{"铁匠", "the blacksmith"}}};

const mm_pair mm_times[MM_TIMES] = {{{"一天早上", "one morning"}},
                                    {{"一天下午", "one afternoon"}},
                                    {{"一个傍晚", "one evening"}},
                                    {{"春天的一天", "one day in spring"}},
                                    {{"夏天的一天", "one day in summer"}},
                                    {{"秋天的一天", "one day in autumn"}},
                                    {{"冬天的一天", "one day in winter"}},
                                    {{"星期天", "on Sunday"}},
                                    {{"过节那天", "on the day of the festival"}},
                                    {{"天刚亮的时候", "just after dawn"}}};

const mm_pair mm_weathers[MM_WEATHERS] = {{{"风刮得很大", "the wind was blowing hard"}},
                                          {{"下着小雨", "a light rain was falling"}},
                                          {{"太阳暖洋洋的", "the sun was warm"}},
                                          {{"雪下得很厚", "the snow lay deep"}},
                                          {{"雾很浓", "the fog was thick"}},
                                          {{"天空很蓝", "the sky was clear and blue"}},
                                          {{"远处打着雷", "thunder rolled far away"}},
                                          {{"空气又冷又干", "the air was cold and dry"}},
                                          {{"天上全是云", "clouds covered the sky"}},
                                          {{"天气闷热", "it was hot and still"}}};

const mm_name mm_names[MM_LANGUAGES][MM_NAMES] = {
    {{"小明", false}, {"小红", true},  {"小丽", true},  {"小刚", false}, {"小芳", true},
     {"小强", false}, {"小雨", true},  {"小龙", false}, {"小梅", true},  {"小华", false},
     {"小兰", true},  {"小军", false}, {"玲玲", true},  {"东东", false}, {"婷婷", true},
     {"乐乐", false}, {"安安", true},  {"浩浩", false}, {"思思", true},  {"阿杰", false},
     {"阿珍", true},  {"阿宝", false}, {"阿秀", true},  {"阿力", false}},
    {{"Lily", true},   {"Tom", false},   {"Emma", true},   {"Jack", false},  {"Anna", true},
     {"Ben", false},   {"Mia", true},    {"Sam", false},   {"Rose", true},   {"Leo", false},
     {"Clara", true},  {"Max", false},   {"Nora", true},   {"Oscar", false}, {"Ivy", true},
     {"Peter", false}, {"Zoe", true},    {"Henry", false}, {"Alice", true},  {"Theo", false},
     {"Ruth", true},   {"Felix", false}, {"Hanna", true},  {"Paul", false}}};

const char *const mm_pet_names[MM_LANGUAGES][MM_PET_NAMES] = {
    {"豆豆", "圆圆", "毛毛", "灰灰", "跳跳", "点点", "团团", "嘟嘟", "胖胖", "闪闪", "布布", "糖糖",
     "卷卷", "响响", "墩墩", "泡泡"},
    {"Rusty", "Pip", "Bramble", "Dusty", "Hop", "Spot", "Barley", "Toto", "Biscuit", "Flash",
     "Patch", "Sugar", "Curly", "Whistle", "Pebble", "Bubbles"}};

const mm_pair mm_bad_feelings[MM_BAD_FEELINGS] = {{{"难过", "sad"}},    {{"着急", "worried"}},
                                                  {{"害怕", "afraid"}}, {{"生气", "angry"}},
                                                  {{"孤单", "lonely"}}, {{"羞愧", "ashamed"}}};

const mm_pair mm_good_feelings[MM_GOOD_FEELINGS] = {
    {{"高兴", "happy"}}, {{"骄傲", "proud"}},   {{"感激", "grateful"}},
    {{"安心", "calm"}},  {{"兴奋", "excited"}}, {{"惊喜", "delighted"}}};

static const char *const EN_SMALL[20] = {"zero",    "one",     "two",       "three",    "four",
                                         "five",    "six",     "seven",     "eight",    "nine",
                                         "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                                         "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const EN_TENS[10] = {"",      "ten",   "twenty",  "thirty", "forty",
                                        "fifty", "sixty", "seventy", "eighty", "ninety"};
static const char *const ZH_DIGITS[10] = {"零", "一", "二", "三", "四",
                                          "五", "六", "七", "八", "九"};

static void number_zh(mm_str *out, int number)
{
    if (number == 100) {
        mm_str_add(out, "一百");
        return;
    }
    if (number >= 20) mm_str_add(out, ZH_DIGITS[number / 10]);
    if (number >= 10) mm_str_add(out, "十");
    if (number % 10 != 0 || number == 0) mm_str_add(out, ZH_DIGITS[number % 10]);
}

static void number_en(mm_str *out, int number)
{
    if (number == 100) {
        mm_str_add(out, "one hundred");
    } else if (number < 20) {
        mm_str_add(out, EN_SMALL[number]);
    } else {
        mm_str_add(out, EN_TENS[number / 10]);
        if (number % 10 != 0) mm_str_addf(out, "-%s", EN_SMALL[number % 10]);
    }
}

void mm_number_words(mm_str *out, mm_language language, int number)
{
    MM_ASSERT(number >= 0 && number <= MM_NUMBER_MAX);
    if (language == MM_ZH)
        number_zh(out, number);
    else
        number_en(out, number);
}

void mm_bare_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour)
{
    if (colour >= 0)
        mm_str_addf(out, language == MM_ZH ? "%s的" : "%s ", mm_colours[colour].text[language]);
    mm_str_add(out, language == MM_ZH ? noun->zh : noun->en);
}

void mm_one_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour)
{
    if (language == MM_ZH) {
        mm_str_addf(out, "一%s", noun->measure);
    } else {
        const char *first = colour >= 0 ? mm_colours[colour].text[MM_EN] : noun->en;
        mm_str_add(out, strchr("aeiou", first[0]) ? "an " : "a ");
    }
    mm_bare_phrase(out, language, noun, colour);
}

void mm_count_phrase(mm_str *out, mm_language language, const mm_noun *noun, int colour, int count,
                     bool in_words)
{
    if (!in_words)
        mm_str_addf(out, "%d", count);
    else if (language == MM_ZH && count == 2)
        mm_str_add(out, "两"); // two before a measure word
    else
        mm_number_words(out, language, count);
    if (language == MM_ZH) {
        mm_str_add(out, noun->measure);
        mm_bare_phrase(out, language, noun, colour);
        return;
    }
    mm_str_add_char(out, ' ');
    if (colour >= 0) mm_str_addf(out, "%s ", mm_colours[colour].text[MM_EN]);
    mm_str_add(out, count == 1 ? noun->en : noun->plural);
}
