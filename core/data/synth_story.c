/* Stories: facts are drawn into slots, then told by the templates of a plot. Slots: h the child,
 * s u i he/him/his, kid girl or boy, f the friend, a and aa its kind, e the elder, o and oo the
 * object, p the place, q and r two spots, t the time, w the weather, b and g a bad and a good
 * feeling, n some things, m some food, x who succeeds, y who tries first, v whom the child
 * remembers (not the child). */
#include "core/data/synth_story.h"

#include <string.h>

enum { BEATS = 5, PLOT_QUESTIONS = 2, PLOTS = 9 };

typedef struct story_question {
    const char *question[MM_LANGUAGES];
    const char *answer[MM_LANGUAGES];
    const char *fact; // slot
} story_question;

typedef struct story_plot {
    const char *beats[MM_LANGUAGES][BEATS];
    story_question questions[PLOT_QUESTIONS];
} story_plot;

static const char *const OPENINGS[MM_LANGUAGES][4] = {
    {"从前有一个[可爱|聪明|善良|安静|勇敢]的小{kid}，[名字叫|叫]{h}。{s}有一个好朋友，"
     "是{aa}，[名字叫|大家叫它]{f}。",
     "{h}是个[爱笑|细心|好奇|勤快]的{kid}，[住在一座小镇上|住在山脚下|和{e}是邻居]。"
     "{s}最好的朋友是{aa}，叫{f}。",
     "[很久以前|有一年]，{aa}和一个{kid}成了好朋友。{a}叫{f}，{kid}叫{h}。",
     "{h}和{f}[每天都在一起玩|总是形影不离|从小一起长大]。{h}是个[爱唱歌|爱画画|爱讲故事]的"
     "{kid}，{f}是{aa}。"},
    {"[Once there was|Long ago there lived|In a small town there lived] a "
     "[little|clever|kind|quiet|"
     "brave] {kid} [called|named] {h}. {^i} best friend was {aa} [called|named] {f}. ",
     "{h} was a [cheerful|careful|curious|busy] {kid} who lived [in a small town|at the foot of a "
     "hill|next door to {e}]. {^s} had a friend, {aa} named {f}. ",
     "[Long ago|One year], {aa} and a {kid} became friends. The {a} was called {f} and the {kid} "
     "was "
     "called {h}. ",
     "{h} and {f} [played together every day|were never apart|had grown up together]. {h} was a "
     "{kid} "
     "who loved to [sing|paint|tell stories], and {f} was {aa}. "}};

static const char *const POSSESSIONS[MM_LANGUAGES][2] = {
    {"{h}有{oo}，[走到哪里都带着|非常喜欢|那是{e}送的]。",
     "{e}[送给|做给]{h}{oo}，{s}[十分爱惜|天天带着]。"},
    {"{h} had {oo}[, and {s} took it everywhere| and loved it more than anything|, a gift from "
     "{e}]. ",
     "{^e} had [given|made] {h} {oo}, and {s} [took good care of it|carried it every day]. "}};

static const char *const SCENES[MM_LANGUAGES][2] = {
    {"{t}，{w}。", "{t}，{w}，{h}和{f}[早早就出了门|约好一起出去|来到{p}]。"},
    {"{^t}, {w}. ",
     "{^t} {w}, and {h} and {f} [went out early|had agreed to meet|went for a walk]. "}};

static const char *const DECORATIONS[MM_LANGUAGES][8] = {
    {"路上，他们看见了{n}。", "{f}[肚子饿了|有点累了]，他们就[坐下来休息|停下来吃了点东西]。",
     "{h}[一边走一边唱歌|数了数天上的云|捡起一根树枝]。", "远处传来[钟声|流水声|笑声]。",
     "“[今天真好|你听|等等我]！”{f}说。",
     "[一位邻居|一个赶车的人|一位老婆婆]从旁边走过，[向他们挥了挥手|手里拿着{n}|笑着问好]。",
     "[风停了一会儿|树叶沙沙地响|四周安静极了]。", "{f}[跑在前面|跟在后面|东张西望]。"},
    {"On the way they saw {n}. ",
     "{f} was [hungry|tired], so they [sat down for a while|stopped to eat "
     "something]. ",
     "{h} [sang as {s} walked|counted the clouds|picked up a stick]. ",
     "Far away they heard [a clock strike|running water|somebody laugh]. ",
     "\"[What a fine day|Listen|Wait for me]!\" said {f}. ",
     "[A neighbour|A cart driver|An old woman] came past [and waved to them|carrying {n}|and "
     "wished them a good day]. ",
     "[The wind stopped for a moment|The leaves whispered|Everything was very quiet]. ",
     "{f} [ran ahead|followed behind|looked around everywhere]. "}};

static const char *const ENDINGS[MM_LANGUAGES][5] = {
    {"从那以后，{h}一直记得{v}做的事。", "那天晚上，{h}把这件事[讲给家里人听|写进了日记]。",
     "{h}、{f}和{e}[一起唱起了歌|一起喝了热茶|高高兴兴地回家了]。",
     "{h}明白了：[朋友要互相帮助|做事不能着急|说话要算数]。", "这就是{h}和{oo}的故事。"},
    {"From that day on, {h} always remembered what {v} had done.",
     "That evening {h} [told the whole story at home|wrote it all down in a diary].",
     "{h}, {f} and {e} [sang a song together|drank hot tea together|went home happily].",
     ("{h} had learned that [friends help each other|it is better not to hurry|a promise must be "
      "kept]."),
     "And that is the story of {h} and the {o}."}};

static const story_plot STORY_PLOTS[PLOTS] = {
    // The object is lost and found.
    {{{"[他们在{p}玩的时候|在{p}散步的时候|在{p}野餐的时候]，{h}[把{o}放下了一会儿|不小心松开了{o}|"
       "忘了看着{o}]，[再一看|过了一会儿]，{o}不见了。",
       "{h}很{b}。“[我的{o}在哪里|我的{o}不见了|我把{o}弄丢了]！”{s}[说|喊道|小声说]。",
       "{y}[先去{r}找|找了{r}]，可是[什么也没有找到|那里什么也没有]。",
       "后来{x}[又去{q}找|在{q}仔细地找]，[果然看见了|终于看见了]{o}。",
       "“[在这里|找到了|快看]！”{x}[说|喊道]。{h}很{g}，[连声向{x}道谢|送给{x}{n}|和{x}握了握手]"
       "。"},
      {"[While they were playing {p}|During a walk {p}|During a picnic {p}], {h} [put the {o} down "
       "for a "
       "moment|let go of the {o}|forgot about the {o}], and [when {s} looked again|a little later] "
       "it was "
       "gone. ",
       "{h} was {b}. \"[Where is my {o}|My {o} is gone|I have lost my {o}]!\" {s} "
       "[said|cried|whispered]. ",
       "{^y} [searched|looked] {r} first, but [found nothing|nothing was there]. ",
       "Then {x} [searched|looked] {q}, and [there it was|there lay the {o}|at last saw the {o}]. ",
       "\"[Here it is|I have found it|Look]!\" {x} [called|said]. {h} was {g} and [thanked {x} "
       "again and "
       "again|gave {x} {n}|shook hands with {x}]. "}},
     {{{"[是谁|谁]找到了{o}？", "Who found the {o}?"},
       {"{x}找到了{o}。", "{^x} found the {o}."},
       "x"},
      {{"{o}[是在哪里找到的|最后在哪里]？", "Where [was the {o} found|did they find the {o}]?"},
       {"{o}在{q}。", "The {o} was {q}."},
       "q"}}},
    // The object breaks and is mended.
    {{{("[在{p}|到了{p}]，{h}[跑得太快|没有看路|滑了一跤]，{o}[掉在石头上|撞在墙上]，[坏了|摔坏了]"
        "。"),
       "{h}很{b}，[眼泪掉了下来|一句话也不说|低着头站在那里]。",
       "{y}[想用胶水粘|想用绳子绑]，可是[没有用|怎么也弄不好]。",
       "{x}[拿来了针线|拿来了工具箱|想了一个办法]，[慢慢地|一点一点地]把{o}修好了。",
       "{h}很{g}。为了感谢{x}，{s}[帮{x}搬了{n}|送给{x}{n}]。"},
      {"{^p}, {h} [ran too fast|did not look where {s} was going|slipped], and the {o} [fell on a "
       "stone|hit a wall] and broke. ",
       "{h} was {b}. {^s} [began to cry|did not say a word|stood there with {i} head down]. ",
       "{^y} tried to [glue it|tie it together], but [it was no use|it would not hold]. ",
       "Then {x} [brought needle and thread|fetched some tools|had an idea] and mended the {o} "
       "[slowly|bit by bit]. ",
       "{h} was {g}. To thank {x}, {s} [carried {n} for {x}|gave {x} {n}]. "}},
     {{{"[是谁|谁]修好了{o}？", "Who mended the {o}?"},
       {"{x}修好了{o}。", "{^x} mended the {o}."},
       "x"},
      {{"[谁没有|是谁没有]修好{o}？", "Who tried to mend the {o} but could not?"},
       {"{y}没有修好{o}。", "{^y} could not mend the {o}."},
       "y"}}},
    // The object falls into something deep.
    {{{"{h}在{p}[一转身|打了个喷嚏|向{f}招手]，{o}就[掉进了水里|滚进了一个深坑|掉进了泥潭]。",
       "[“救救它！”|“怎么办？”|“哎呀！”]{h}[叫道|问]。{s}很{b}。",
       "{y}找来一根[木棍|竹竿]，可是[太短了|断了]。",
       "{x}[撒下一张网|放下一根绳子|把它钩住]，[用力一拉|数到三]，{o}就上来了。",
       "大家[都拍手|都笑了]，{h}很{g}，[请大家吃了{m}|把{o}擦得干干净净]。"},
      {"{^p} {h} [turned round|sneezed|waved to {f}], and the {o} [fell into the water|rolled into "
       "a deep "
       "hole|fell into the mud]. ",
       "\"[Save it|What shall we do|Oh no]!\" [cried|said] {h}, who was {b}. ",
       "{^y} found a long [stick|pole], but it [was too short|broke]. ",
       "{^x} [threw a net|let down a rope|caught it with a hook], [pulled hard|counted to three], "
       "and up "
       "came the {o}. ",
       "Everybody [clapped|laughed]. {h} was {g} and [shared {m} with them|wiped the {o} "
       "clean]. "}},
     {{{"[是谁|谁]把{o}弄上来的？", "Who got the {o} out?"},
       {"是{x}把{o}弄上来的。", "{^x} got the {o} out."},
       "x"},
      {{"[谁的办法没有成功|谁先试了，没有成功]？", "Who tried first and did not manage it?"},
       {"{y}没有成功。", "{^y} did not manage it."},
       "y"}}},
    // Two want the same thing.
    {{{"在{p}，{f}也想玩{o}。“[给我|该我了]！”{f}说。“[不行|这是我的]！”{h}说。",
       "他们[拉来拉去|吵了很久|谁也不理谁]。{h}很{b}，{f}也[不高兴|不说话]。",
       "[正好|这时]{e}[走过来|听见了]，[问他们怎么了|摇了摇头]。",
       ("{x}说：“[轮流玩吧|一人玩一会儿吧]，[数到一百就换|太阳下山前每人都能玩]。”{y}[点了点头|"
        "觉得有道理]。"),
       "于是他们轮流玩{o}，[玩得很开心|再也不吵了]。{h}很{g}，分给{f}{n}。"},
      {"{^p} {f} wanted the {o} too. \"[Give it to me|It is my turn]!\" said {f}. \"[No|It is "
       "mine]!\" said "
       "{h}. ",
       "They [pulled it to and fro|shouted for a long time|would not look at each other]. {h} was "
       "{b}, and "
       "{f} [was no better|said nothing]. ",
       "Just then {e} [came by|heard them] and [asked what was wrong|shook a wise head]. ",
       "\"[Take turns|Each of you may have it for a while],\" said {x}, \"[and change at one "
       "hundred|and "
       "there will be time for both before sunset].\" {^y} [nodded|saw that it was fair]. ",
       "So they shared the {o} and [played until evening|never fought about it again]. {h} was {g} "
       "and gave "
       "{f} {n}. "}},
     {{{"[是谁|谁]说要轮流玩？", "Who said that they should take turns?"},
       {"{x}说要轮流玩。", "{^x} said that they should take turns."},
       "x"},
      {{"他们在抢什么东西？", "What did they both want?"},
       {"他们都想要{o}。", "They both wanted the {o}."},
       "o"}}},
    // A present, hidden and found.
    {{{"那天是{f}的生日。{h}想把{o}送给{f}，就悄悄地把它藏在{q}。",
       "“[猜猜礼物在哪里|有一样东西给你]。”{h}说。{f}[高兴得跳了起来|马上开始找]。",
       "{f}找了{r}，[什么也没有|是空的]。{h}有点{b}。",
       "{e}[笑了笑|小声]说：“[往{q}看看|去{q}找找]。”",
       "{f}跑过去，[打开一看|一下子就看见了]，是{oo}！{f}和{h}都很{g}，一起吃了{m}。"},
      {"It was {f}'s birthday. {h} wanted to give {f} the {o} and secretly hid it {q}. ",
       "\"[Guess where your present is|There is something for you],\" said {h}. {f} [jumped for "
       "joy|began "
       "to search at once]. ",
       "{f} looked {r}, but [it was not there|found nothing]. {h} grew a little {b}. ",
       "{^e} [smiled|nodded] and said, \"[Try looking|Have a look] {q}.\" ",
       "{f} ran there, and [what a surprise|look]: {oo}! {f} and {h} were {g} and ate {m} "
       "together. "}},
     {{{"礼物藏在哪里？", "Where was the present hidden?"},
       {"礼物藏在{q}。", "The present was hidden {q}."},
       "q"},
      {{"[是谁|谁]告诉{f}去哪里找？", "Who told {f} where to look?"},
       {"{e}告诉了{f}。", "{^e} told {f} where to look."},
       "e"}}},
    // A promise to bring something in time.
    {{{"{h}答应{e}，[天黑以前|中午以前]把{o}送到{p}。{f}[陪{s}一起去|在前面带路]。",
       "半路上，[他们走错了方向|桥断了|天色暗了下来]，{h}很{b}。",
       "{h}[想往左走|想走近路]，可是{f}[停了下来|摇摇头]：“[跟我来|我认得路]。”",
       "{f}[闻了闻地上|看了看星星|顺着小溪走]，他们终于[到了{p}|看见了灯光]。",
       "{e}[收到{o}|看见{o}]，[笑得合不拢嘴|说了好几声谢谢]。{h}很{g}，{e}还给了他们{n}。"},
      {"{h} had promised {e} to bring the {o} [before dark|before noon] to a house {p}. {f} [went "
       "along|led "
       "the way]. ",
       "Halfway there [they took a wrong turn|they came to a broken bridge|it grew dark], and {h} "
       "was {b}. ",
       "{h} wanted to [turn left|take a short cut], but {f} [stopped|would not go on]. \"[Follow "
       "me|I know "
       "the way]!\" ",
       "{f} [sniffed the ground|looked at the stars|followed the stream], and at last they "
       "[arrived|saw a "
       "light]. ",
       "When {e} [got|saw] the {o}, {e} [laughed with joy|said thank you many times]. {h} was {g}, "
       "and they "
       "were given {n}. "}},
     {{{"{h}要把{o}送给谁？", "Who was the {o} for?"},
       {"{o}是送给{e}的。", "The {o} was for {e}."},
       "e"},
      {{"[是谁|谁]认得路？", "Who knew the way?"}, {"{f}认得路。", "{f} knew the way."}, "f"}}},
    // A race.
    {{{"{e}说：“[谁先跑到|第一个跑到]{p}，{o}就给谁。”{x}和{y}[站好了|准备好了]。",
       "“一、二、三，跑！”{y}[跑得飞快|一下子就不见了]，{x}[跑得不快|落在后面]，但是没有停。",
       "{y}[停下来吃{m}|躺下来睡了一觉|去追一只蝴蝶]，[心想还早着呢|一点也不着急]。",
       "{x}[一步一步|不停地]往前跑，先到了{p}。",
       "{x}赢得了{o}。{y}很{b}，可是{x}说：“[我们一起玩吧|下次再比]。”大家都很{g}。"},
      {"\"Whoever is the first to arrive {p} shall have the {o},\" said {e}. {^x} and {y} "
       "[got "
       "ready|stood side by side]. ",
       "\"One, two, three, go!\" {^y} [ran like the wind|was soon out of sight]. {^x} [was "
       "slower|fell "
       "behind] but did not stop. ",
       "{^y} [stopped to eat {m}|lay down to sleep|chased a butterfly] and [thought there was "
       "plenty of "
       "time|did not hurry at all]. ",
       "{^x} ran on [step by step|without a rest] and was the first to arrive. ",
       "So {x} won the {o}. {^y} was {b}, but {x} said, \"[Let us play together|We can race "
       "again].\" "
       "Everybody was {g}. "}},
     {{{"[是谁|谁]赢了比赛？", "Who won the race?"}, {"{x}赢了比赛。", "{^x} won the race."}, "x"},
      {{"[是谁|谁]输了比赛？", "Who lost the race?"},
       {"{y}输了比赛。", "{^y} lost the race."},
       "y"}}},
    // Somebody else's thing.
    {{{"[在{p}，|走着走着，]{f}[忽然叫了起来|停住了]。{q}有一样东西，正是{h}丢了很久的{o}！",
       "{h}[又惊又喜|不敢相信]。可是{o}上面[系着一张纸条|写着一个名字]。",
       "“是你拿走的吗？”{h}问{y}。{y}[摇摇头|说不是]。{h}很{b}。",
       "{x}[红着脸|小声]说：“是我[捡到的|借走的]，[忘了还给你|怕你生气]。”",
       "{h}[想了想|笑了]，说没关系。{x}很{g}，[第二天|马上]送来了{n}。"},
      {"[{^p}|After a while] {f} suddenly [called out|stood still]. Something lay {q}: the {o} "
       "that {h} had "
       "missed for so long! ",
       "{h} [could hardly believe it|was very surprised]. But there was [a note|a name] on the "
       "{o}. ",
       "\"Was it you who took it?\" {h} asked {y}. {^y} [said no|knew nothing about it]. {h} was "
       "{b}. ",
       "\"It was me,\" said {x} [quietly|with a red face]. \"I [found it|borrowed it] and [forgot "
       "to bring "
       "it back|was afraid to tell you].\" ",
       "{h} [thought about it|smiled] and forgave {x}. {^x} was {g} and [the next day|at once] "
       "brought {n}. "}},
     {{{"[是谁|谁]拿走了{o}？", "Who had taken the {o}?"},
       {"{x}拿走了{o}。", "{^x} had taken the {o}."},
       "x"},
      {{"{o}[在哪里|是在哪里看见的]？", "Where [did the {o} lie|was the {o}]?"},
       {"{o}在{q}。", "The {o} lay {q}."},
       "q"}}},
    // Fear in the night.
    {{{("夜里，{h}和{f}[住在{p}的小屋|在{p}搭了帐篷]。{y}[听见了奇怪的声音|怎么也睡不着]，心里很{b}"
        "。"),
       "“[外面有人吗|那是什么]？”{y}[小声问|躲进被子里]。",
       "{x}[点亮了灯|坐了起来]，说：“[别怕，只是树枝|那是雨声]。”",
       "{x}把{o}放在{y}旁边，[讲了一个故事|唱了一首歌|数了{n}]。",
       "[慢慢地|不一会儿]，{y}睡着了。早上起来，大家都很{g}，{e}[端来了早饭|在门口等他们]。"},
      {"At night {h} and {f} [slept in a hut|had put up a tent] {p}. {^y} [heard a strange "
       "noise|could not "
       "sleep] and was {b}. ",
       "\"[Is somebody there|What is that]?\" {y} [whispered|asked from under the covers]. ",
       "{^x} [lit a light|sat up] and said, \"[Do not fear, it is only a branch|That is only the "
       "rain].\" ",
       "{^x} put the {o} beside {y} and [told a story|sang a song|counted {n}]. ",
       "[Slowly|Soon] {y} fell asleep. In the morning everybody was {g}, and {e} [brought "
       "breakfast|was "
       "waiting at the door]. "}},
     {{{"[是谁|谁]睡不着？", "Who could not sleep at first?"},
       {"{y}睡不着。", "{^y} could not sleep at first."},
       "y"},
      {{"[是谁|谁]把{o}放在{y}旁边？", "Who put the {o} beside {y}?"},
       {"{x}把{o}放在{y}旁边。", "{^x} put the {o} beside {y}."},
       "x"}}}};

// Questions that every story answers.
static const story_question COMMON_QUESTIONS[] = {
    {{"{f}是什么动物？", "What kind of animal [was|is] {f}?"},
     {"{f}是{aa}。", "{f} was {aa}."},
     "a"},
    {{"{h}的朋友叫什么名字？", "What was the name of {h}'s friend?"},
     {"{h}的朋友叫{f}。", "{h}'s friend was called {f}."},
     "f"},
    {{"{ob}是什么颜色的？", "What colour was the {ob}?"},
     {"{ob}是{c}的。", "The {ob} was {c}."},
     "c"}};
enum { COMMON = sizeof COMMON_QUESTIONS / sizeof COMMON_QUESTIONS[0] };

static void set_phrase(mm_slots *slots, const char *name, mm_str *text)
{
    mm_slots_set(slots, name, mm_str_text(text));
    mm_str_clear(text);
}

static void draw_hero(mm_synth *synth, mm_slots *slots)
{
    static const char *const PRONOUNS[MM_LANGUAGES][2][4] = {
        {{"他", "他", "他的", "男孩"}, {"她", "她", "她的", "女孩"}},
        {{"he", "him", "his", "boy"}, {"she", "her", "her", "girl"}}};
    const mm_name *hero = &mm_names[synth->language][mm_synth_below(synth, MM_NAMES)];
    const char *const *pronouns = PRONOUNS[synth->language][hero->is_female];
    mm_slots_set(slots, "h", hero->text);
    mm_slots_set(slots, "s", pronouns[0]);
    mm_slots_set(slots, "u", pronouns[1]);
    mm_slots_set(slots, "i", pronouns[2]);
    mm_slots_set(slots, "kid", pronouns[3]);
}

static void draw_scene(mm_synth *synth, mm_slots *slots)
{
    const mm_language language = synth->language;
    const int spot = mm_synth_below(synth, MM_SPOTS);
    const int other = (spot + 1 + mm_synth_below(synth, MM_SPOTS - 1)) % MM_SPOTS;
    const struct {
        const char *name;
        const mm_pair *pair;
    } drawn[] = {{"e", &mm_elders[mm_synth_below(synth, MM_ELDERS)]},
                 {"p", &mm_places[mm_synth_below(synth, MM_PLACES)]},
                 {"q", &mm_spots[spot]},
                 {"r", &mm_spots[other]},
                 {"t", &mm_times[mm_synth_below(synth, MM_TIMES)]},
                 {"w", &mm_weathers[mm_synth_below(synth, MM_WEATHERS)]},
                 {"b", &mm_bad_feelings[mm_synth_below(synth, MM_BAD_FEELINGS)]},
                 {"g", &mm_good_feelings[mm_synth_below(synth, MM_GOOD_FEELINGS)]}};
    for (size_t i = 0; i < sizeof drawn / sizeof drawn[0]; i++)
        mm_slots_set(slots, drawn[i].name, drawn[i].pair->text[language]);
}

// Of which two people one succeeds and the other does not, by plot.
static const char *const CAST[PLOTS][2] = {{"e", "f"}, {"e", "f"}, {"e", "f"},
                                           {"e", "h"}, {"e", "f"}, {"e", "f"},
                                           {"h", "f"}, {"e", "f"}, {"h", "f"}};
// Entries of mm_things that can be eaten.
static const int FOODS[] = {0, 1, 2, 7, 8, 12, 14};
enum { FOOD_COUNT = sizeof FOODS / sizeof FOODS[0] };

void mm_story_draw(mm_synth *synth, mm_story *story)
{
    mm_slots *slots = &story->slots;
    const mm_language language = synth->language;
    mm_str text = {0};
    int animal;
    int object;
    story->plot = mm_synth_below(synth, PLOTS);
    slots->count = 0;
    draw_hero(synth, slots);
    draw_scene(synth, slots);
    mm_synth_combo(synth, MM_COMBO_STORY, MM_ANIMALS, MM_OBJECTS, &animal, &object);
    const int colour = mm_synth_below(synth, MM_COLOURS);
    mm_slots_set(slots, "f", mm_pet_names[language][mm_synth_below(synth, MM_PET_NAMES)]);
    mm_slots_set(slots, "c", mm_colours[colour].text[language]);
    mm_bare_phrase(&text, language, &mm_animals[animal], -1);
    set_phrase(slots, "a", &text);
    mm_one_phrase(&text, language, &mm_animals[animal], -1);
    set_phrase(slots, "aa", &text);
    mm_bare_phrase(&text, language, &mm_objects[object], -1);
    set_phrase(slots, "ob", &text);
    mm_bare_phrase(&text, language, &mm_objects[object], colour);
    set_phrase(slots, "o", &text);
    mm_one_phrase(&text, language, &mm_objects[object], colour);
    set_phrase(slots, "oo", &text);
    mm_count_phrase(&text, language, &mm_things[mm_synth_below(synth, MM_THINGS)], -1,
                    2 + mm_synth_below(synth, 8), true);
    set_phrase(slots, "n", &text);
    mm_count_phrase(&text, language, &mm_things[FOODS[mm_synth_below(synth, FOOD_COUNT)]], -1,
                    2 + mm_synth_below(synth, 8), true);
    set_phrase(slots, "m", &text);
    const char *first = mm_slots_get(slots, CAST[story->plot][0]);
    const char *second = mm_slots_get(slots, CAST[story->plot][1]);
    const bool is_swapped = mm_synth_chance(synth, 50);
    mm_slots_set(slots, "x", is_swapped ? second : first);
    mm_slots_set(slots, "y", is_swapped ? first : second);
    const char *helper = mm_slots_get(slots, "x");
    const bool is_child = strcmp(helper, mm_slots_get(slots, "h")) == 0;
    mm_slots_set(slots, "v", is_child ? mm_slots_get(slots, "f") : helper);
    mm_str_drop(&text);
}

#define PICK(synth, table)                                                                         \
    ((table)[mm_synth_below((synth), (int)(sizeof(table) / sizeof(table)[0]))])

void mm_story_tell(mm_synth *synth, const mm_story *story, bool is_short, mm_str *out)
{
    const mm_language language = synth->language;
    const mm_slots *slots = &story->slots;
    const char *const *beats = STORY_PLOTS[story->plot].beats[language];
    mm_synth_expand(synth, PICK(synth, OPENINGS[language]), slots, out);
    mm_synth_expand(synth, PICK(synth, POSSESSIONS[language]), slots, out);
    if (!is_short) mm_synth_expand(synth, PICK(synth, SCENES[language]), slots, out);
    for (int i = 0; i < BEATS; i++) {
        mm_synth_expand(synth, beats[i], slots, out);
        if (!is_short && i + 1 < BEATS && mm_synth_chance(synth, 30))
            mm_synth_expand(synth, PICK(synth, DECORATIONS[language]), slots, out);
    }
    if (!is_short) mm_synth_expand(synth, PICK(synth, ENDINGS[language]), slots, out);
    // English beats end with the space that parts them.
    if (out->length > 0 && out->data[out->length - 1] == ' ') out->data[--out->length] = '\0';
}

// Changes the fact of a question into another one of its kind.
static void falsify(mm_synth *synth, mm_slots *slots, const char *fact)
{
    const mm_language language = synth->language;
    const mm_slots right = *slots;
    mm_str text = {0};
    switch (fact[0]) {
    case 'x':
    case 'y':
        mm_slots_set(slots, "x", mm_slots_get(&right, "y"));
        mm_slots_set(slots, "y", mm_slots_get(&right, "x"));
        break;
    case 'q':
        mm_slots_set(slots, "q", mm_slots_get(&right, "r"));
        break;
    case 'f':
    case 'e':
        mm_slots_set(slots, "f", mm_slots_get(&right, "e"));
        mm_slots_set(slots, "e", mm_slots_get(&right, "f"));
        break;
    default:
        do {
            const int colour = mm_synth_below(synth, MM_COLOURS);
            const mm_noun *object = &mm_objects[mm_synth_below(synth, MM_OBJECTS)];
            const mm_noun *animal = &mm_animals[mm_synth_below(synth, MM_ANIMALS)];
            mm_slots_set(slots, "c", mm_colours[colour].text[language]);
            mm_bare_phrase(&text, language, object, colour);
            set_phrase(slots, "o", &text);
            mm_bare_phrase(&text, language, animal, -1);
            set_phrase(slots, "a", &text);
            mm_one_phrase(&text, language, animal, -1);
            set_phrase(slots, "aa", &text);
        } while (strcmp(mm_slots_get(slots, fact), mm_slots_get(&right, fact)) == 0);
    }
    mm_str_drop(&text);
}

void mm_story_ask(mm_synth *synth, const mm_story *story, mm_str *question, mm_str *answer,
                  mm_str *wrong, mm_str *fact)
{
    mm_slots slots = story->slots;
    const int drawn = mm_synth_below(synth, COMMON + PLOT_QUESTIONS);
    const story_question *asked = drawn < COMMON
                                      ? &COMMON_QUESTIONS[drawn]
                                      : &STORY_PLOTS[story->plot].questions[drawn - COMMON];
    mm_synth_expand(synth, asked->question[synth->language], &slots, question);
    mm_synth_expand(synth, asked->answer[synth->language], &slots, answer);
    mm_str_add(fact, mm_slots_get(&slots, asked->fact));
    falsify(synth, &slots, asked->fact);
    mm_synth_expand(synth, asked->answer[synth->language], &slots, wrong);
}
