/* lists.c - see lists.h. Written for noema: art movements and media by their names, artists who died more than a century ago, and
 * descriptive phrases. Upstream's lists (100,000 phrases) are read with --lists DIR. */
#include "generate/lists.h"

#include <string.h>

static const nm_list_form artists_en[] = { { "by ", "" }, { "inspired by ", "" }, { 0 } };
static const nm_list_form sites_en[] = { { "", "" }, { "trending on ", "" }, { "featured on ", "" }, { "", " contest winner" }, { 0 } };
static const nm_list_form artists_ko[] = { { "", " 작품" }, { "", " 화풍" }, { 0 } };
static const nm_list_form sites_ko[] = { { "", "" }, { "", " 인기작" }, { "", " 추천작" }, { "", " 공모전 수상작" }, { 0 } };

static const nm_lists all[] = {
    { "en", artists_en, sites_en, {
    "Albrecht Dürer\nBerthe Morisot\nCaravaggio\nClaude Lorrain\nDiego Velázquez\nEdgar Degas\nÉdouard Manet\nEl Greco\nEugène Delacroix\nFrancisco Goya\n"
    "Georges Seurat\nHieronymus Bosch\nHokusai\nJan van Eyck\nJohannes Vermeer\nJohn Constable\nJoseph Mallord William Turner\nKatsushika Ōi\nKim Hong-do\nLeonardo da Vinci\n"
    "Mary Cassatt\nMichelangelo\nPaul Cézanne\nPaul Gauguin\nPeter Paul Rubens\nPieter Bruegel the Elder\nRaphael\nRembrandt\nSandro Botticelli\nShin Yun-bok\n"
    "Titian\nUtagawa Hiroshige\nVincent van Gogh\nWilliam Blake\n",
    "golden hour light\nsoft diffuse light\nhard shadows\nbacklit\nneon lights\ncandle light\nmoonlight\nfoggy morning\nrainy street\nsnow covered\nstormy sky\nclear blue sky\n"
    "sunset over the sea\nreflections in water\nautumn leaves\nspring blossoms\nlush green meadow\ndense forest\nsnowy mountains\nsandy beach\ndesert dunes\ncity skyline at night\n"
    "crowded market\nnarrow alley\nold stone walls\nwooden interior\nmodern architecture\nindustrial ruins\ncosy room\nempty room\nclose up\nextreme close up\nwide angle\n"
    "aerial view\nbird's eye view\nlow angle\nshallow depth of field\nbokeh background\nmotion blur\nlong exposure\nhigh contrast\nlow contrast\nblack and white\nsepia tones\n"
    "vibrant colors\nmuted colors\npastel palette\nearth tones\nmonochrome blue\nred and gold\nfilm grain\nhighly detailed\nintricate pattern\nminimal composition\nsymmetrical\n"
    "centered portrait\ngroup of people\nsmiling face\nfrom behind\nfull body\nhands in focus\nsleeping animal\nrunning animal\nbird in flight\ncurious cat\nloyal dog\n"
    "wild horse\nfish under water\ninsect on a flower\nfresh fruit\nhome made food\ntable set for dinner\nsteam rising\nvintage car\nold bicycle\ntrain at a station\nships in a harbor\n"
    "airplane in the sky\nkitchen still life\nbooks and paper\nmusical instruments\nsports event\nchildren playing\nwedding ceremony\nfestival crowd\ntraditional clothing\n"
    "hanbok\nhanok roof tiles\ncherry blossoms\nlantern light\nwhimsical\nmelancholic\npeaceful\ndramatic\nmysterious\njoyful\nnostalgic\ndreamy\nsurreal\nfuturistic\n"
    "hand drawn lines\nthick brush strokes\nwatercolor wash\npaper texture\ncross hatching\nflat colors\nisometric\npixelated\nlow resolution\ncartoon style\nicon on white background\n",
    "a photograph\na black and white photograph\na screenshot\na painting\nan oil painting\na watercolor painting\nan acrylic painting\na fresco\nan ink drawing\na pencil sketch\n"
    "a charcoal drawing\na pastel drawing\na woodcut\nan etching\na lithograph\na poster\na comic panel\na digital painting\na digital rendering\na 3D render\n"
    "a low poly render\npixel art\nvector art\nan icon\na collage\na mosaic\na stained glass window\na sculpture\na bronze statue\na ceramic\n"
    "an embroidery\na tapestry\na diagram\na map\na blueprint\nan emoji\n",
    "abstract art\nabstract expressionism\nacademic art\nart deco\nart nouveau\narts and crafts movement\nbaroque\nbauhaus\nbyzantine art\nclassicism\nconceptual art\nconstructivism\n"
    "cubism\ndada\nexpressionism\nfauvism\nfolk art\nfuturism\ngothic art\nimpressionism\njoseon painting\nminimalism\nmodernism\nnaturalism\nneoclassicism\nneo-impressionism\n"
    "op art\nphotorealism\npointillism\npop art\npost-impressionism\npre-raphaelitism\nrealism\nrenaissance\nrococo\nromanticism\nsurrealism\nsuprematism\nsymbolism\ntonalism\nukiyo-e\n",
    "",
    "blurry\nout of focus\nlow quality\nlow resolution\nover exposed\nunder exposed\nnoisy\ngrainy\njpeg artifacts\ncropped\nout of frame\ncut off\nwatermark\nsignature\ntext\n"
    "duplicate\ndeformed\ndistorted\ndisfigured\nbad anatomy\nbad proportions\nextra fingers\nextra limbs\nmissing limbs\npoorly drawn face\npoorly drawn hands\nugly\ndull\n",
    } },
    { "ko", artists_ko, sites_ko, {
    "알브레히트 뒤러\n베르트 모리조\n카라바조\n클로드 로랭\n디에고 벨라스케스\n에드가 드가\n에두아르 마네\n엘 그레코\n외젠 들라크루아\n프란시스코 고야\n"
    "조르주 쇠라\n히에로니무스 보스\n가쓰시카 호쿠사이\n얀 반 에이크\n요하네스 페르메이르\n존 컨스터블\n윌리엄 터너\n우타가와 히로시게\n레오나르도 다 빈치\n메리 커샛\n"
    "미켈란젤로\n폴 세잔\n폴 고갱\n페테르 파울 루벤스\n피터르 브뤼헐\n라파엘로\n렘브란트\n산드로 보티첼리\n티치아노\n빈센트 반 고흐\n윌리엄 블레이크\n"
    "안견\n정선\n김홍도\n신윤복\n김정희\n장승업\n강세황\n신사임당\n윤두서\n변상벽\n이암\n",
    "황금빛 노을\n부드러운 빛\n짙은 그림자\n역광\n네온 불빛\n촛불\n달빛\n안개 낀 아침\n비 내리는 거리\n눈 덮인 풍경\n폭풍이 몰려오는 하늘\n맑고 푸른 하늘\n바다 위의 일몰\n일출\n"
    "물에 비친 모습\n단풍\n봄꽃\n벚꽃\n푸른 들판\n울창한 숲\n대나무 숲\n소나무\n눈 덮인 산\n모래사장\n사막\n계곡\n폭포\n호수\n도시의 야경\n북적이는 시장\n좁은 골목\n오래된 돌담\n"
    "나무로 된 실내\n현대 건축\n폐공장\n아늑한 방\n텅 빈 방\n접사\n광각\n항공 사진\n위에서 내려다본 모습\n아래에서 올려다본 모습\n얕은 심도\n흐린 배경\n움직임의 잔상\n장노출\n"
    "강한 대비\n은은한 대비\n흑백\n세피아 톤\n선명한 색감\n차분한 색감\n파스텔 톤\n흙빛\n푸른 단색\n붉은색과 금색\n오방색\n필름 입자\n매우 섬세한\n복잡한 무늬\n간결한 구도\n대칭 구도\n"
    "인물 사진\n단체 사진\n웃는 얼굴\n뒷모습\n전신\n손\n잠자는 동물\n달리는 동물\n날아가는 새\n호기심 많은 고양이\n충직한 개\n야생마\n물속의 물고기\n꽃에 앉은 곤충\n신선한 과일\n"
    "집밥\n한식 상차림\n김이 나는 음식\n길거리 음식\n떡과 한과\n차 한 잔\n오래된 자동차\n낡은 자전거\n역에 선 기차\n항구의 배\n하늘을 나는 비행기\n책과 종이\n악기\n운동 경기\n"
    "노는 아이들\n결혼식\n축제 인파\n전통 의상\n한복\n한옥 기와지붕\n단청\n청사초롱\n궁궐\n절\n장독대\n시골 마을\n지하철역\n고층 빌딩\n한강\n제주도 바다\n"
    "기발한\n쓸쓸한\n평화로운\n극적인\n신비로운\n즐거운\n그리운\n몽환적인\n초현실적인\n미래적인\n손으로 그린 선\n두꺼운 붓질\n수채 번짐\n먹의 농담\n여백의 미\n종이 질감\n"
    "빗금\n단순한 색면\n등각 투영\n픽셀\n낮은 해상도\n만화풍\n흰 바탕의 아이콘\n",
    "사진\n흑백 사진\n화면 캡처\n그림\n유화\n수채화\n아크릴화\n프레스코화\n수묵화\n채색화\n민화\n병풍\n붓글씨\n연필 스케치\n목탄화\n파스텔화\n목판화\n동판화\n석판화\n포스터\n만화\n"
    "웹툰\n디지털 그림\n3D 렌더링\n로우 폴리 렌더링\n픽셀 아트\n벡터 그림\n아이콘\n콜라주\n모자이크\n스테인드글라스\n조각\n청동상\n도자기\n청자\n백자\n자수\n태피스트리\n도표\n지도\n설계도\n"
    "이모지\n",
    "추상 미술\n추상 표현주의\n아카데미즘\n아르 데코\n아르 누보\n미술 공예 운동\n바로크\n바우하우스\n비잔틴 미술\n고전주의\n개념 미술\n구성주의\n입체주의\n다다\n표현주의\n야수파\n민속 미술\n"
    "미래주의\n고딕 미술\n인상주의\n조선 회화\n진경산수\n풍속화\n문인화\n고려 불화\n단색화\n민중 미술\n미니멀리즘\n모더니즘\n자연주의\n신고전주의\n신인상주의\n옵 아트\n극사실주의\n점묘법\n팝 아트\n"
    "후기 인상주의\n라파엘 전파\n사실주의\n르네상스\n로코코\n낭만주의\n초현실주의\n절대주의\n상징주의\n우키요에\n",
    "",
    "흐릿한\n초점이 맞지 않은\n낮은 화질\n낮은 해상도\n노출 과다\n노출 부족\n잡음\n거친 입자\n압축 잡티\n잘린 사진\n화면을 벗어난\n워터마크\n서명\n글자\n중복된\n변형된\n뒤틀린\n어색한 인체\n"
    "어색한 비율\n손가락이 많은\n팔다리가 많은\n팔다리가 없는\n서툴게 그린 얼굴\n서툴게 그린 손\n못생긴\n밋밋한\n",
    } },
};

const nm_lists *nm_lists_find(const char *language)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].language, language) == 0)
            return &all[i];
    return NULL;
}
