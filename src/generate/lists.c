/* lists.c - see lists.h. Written for noema: art movements and media by their names, artists who died more than a century ago, and
 * descriptive phrases. Upstream's lists (100,000 phrases) are read with --lists DIR. */
#include "generate/lists.h"

const char *const nm_builtin_lists[6] = {
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
};
