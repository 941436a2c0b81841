package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// masker replaces what could name a customer, a device or a secret. The same
// input gives the same output for one secret, in whatever form it comes.
type masker struct {
	vocabulary map[string]bool // words of an API, lower case

	mu    sync.Mutex // guards what follows
	key   string     // the API key of the newest call; words of the vocabulary in it are masked, too
	mac   hash.Hash
	ips   ipMasker
	macs  map[[6]byte][6]byte
	inUse map[[6]byte]bool
	ids   idMasker
	words map[string]string
	taken map[string]bool
}

func newMasker(secret [32]byte) *masker {
	m := &masker{
		vocabulary: vocabulary(),
		mac:        hmac.New(sha256.New, secret[:]),
		macs:       map[[6]byte][6]byte{},
		inUse:      map[[6]byte]bool{},
		words:      map[string]string{},
		taken:      map[string]bool{},
	}
	m.ips = newIPMasker(m.stream("networks"), m.prf)
	m.ids = newIDMasker(m.prf)
	return m
}

// prf is the keyed function that everything is made of. label keeps the uses apart.
func (m *masker) prf(label string, n ...uint64) [32]byte {
	m.mac.Reset()
	_, _ = m.mac.Write([]byte(label)) // a hash does not fail
	var b [9]byte
	for _, v := range n {
		binary.BigEndian.PutUint64(b[1:], v)
		_, _ = m.mac.Write(b[:])
	}
	var out [32]byte
	m.mac.Sum(out[:0])
	return out
}

// stream returns keyed random numbers.
func (m *masker) stream(label string) *rand.Rand {
	return rand.New(rand.NewChaCha8(m.prf("stream " + label)))
}

// firstInet is 1.0.0.0: a whole number from here to 2^32 is taken for an
// address, as the client takes it, a smaller one for an id.
const firstInet = 1 << 24

// number masks a whole number without sign and leading zeros, by its size.
func (m *masker) number(digits string, negative bool) string {
	n, err := strconv.ParseUint(digits, 10, 64)
	sign := ""
	if negative {
		sign = "-"
	}
	switch {
	case err != nil:
		return sign + m.word(digits)
	case n < firstID:
		return sign + digits
	case n < firstInet:
		return sign + strconv.FormatUint(m.ids.mask(n), 10)
	case negative && n <= 1<<31:
		// An address as PHP on 32 bits prints it.
		return strconv.FormatInt(int64(int32(m.ips.mask(uint32(-int64(n))))), 10)
	case !negative && n < 1<<32:
		return strconv.FormatUint(uint64(m.ips.mask(uint32(n))), 10)
	}
	return sign + m.word(digits)
}

// hardware masks a MAC: none stays none, a group address stays one, and those
// of one vendor stay together.
func (m *masker) hardware(mac [6]byte) [6]byte {
	if mac == [6]byte{} || mac == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} {
		return mac
	}
	if out, ok := m.macs[mac]; ok {
		return out
	}
	number := func(b []byte) (n uint64) {
		for _, c := range b {
			n = n<<8 | uint64(c)
		}
		return n
	}
	vendor := m.prf("vendor", number(mac[:3]))
	out := [6]byte{0x02 | mac[0]&1, vendor[0], vendor[1]}
	for try := uint64(0); ; try++ {
		own := m.prf("mac", number(mac[:]), try)
		copy(out[3:], own[:])
		if !m.inUse[out] && out != mac {
			break
		}
	}
	m.macs[mac], m.inUse[out] = out, true
	return out
}

// word masks one word: letters become letters of the same alphabet and case,
// digits become digits, and a leading zero stays. Two words that differ get
// masks that differ as long as there are enough words of that kind.
func (m *masker) word(w string) string {
	folded := strings.ToLower(w)
	if len(folded) != len(w) {
		folded = w // a letter whose cases have other lengths
	}
	masked, ok := m.words[folded]
	if !ok {
		masked = m.newWord(folded)
		m.words[folded] = masked
	}
	if folded == w {
		return masked
	}
	return copyCase(masked, w)
}

func (m *masker) newWord(w string) string {
	seed := m.prf("word " + w)
	rng := rand.New(rand.NewChaCha8(seed))
	var out string
	for try := 0; try < 64; try++ {
		out = drawWord(rng, w)
		if out != w && !(m.taken[out] && try < 16) {
			break
		}
	}
	m.taken[out] = true
	return out
}

// The alphabets that masks are written in. Without e and l no mask is a number
// or a word of JSON that its origin was not.
const (
	latin    = "abcdfghijkmnopqrstuvwxyz"
	cyrillic = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
	twoBytes = "αβγδεζηθικλμνξοπρστυφχψω"          // any other letter of two bytes
	three    = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ" // of three
)

// drawWord returns random letters and digits in the pattern of w.
func drawWord(rng *rand.Rand, w string) string {
	pick := func(alphabet string) rune {
		all := []rune(alphabet)
		return all[rng.IntN(len(all))]
	}
	var b strings.Builder
	for i, c := range w {
		switch {
		case c == '0' && i == 0:
			b.WriteByte('0')
		case c >= '0' && c <= '9' && i == 0:
			b.WriteByte(byte('1' + rng.IntN(9)))
		case c >= '0' && c <= '9':
			b.WriteByte(byte('0' + rng.IntN(10)))
		case c < 0x80:
			b.WriteRune(pick(latin))
		case c >= 0x400 && c < 0x530:
			b.WriteRune(pick(cyrillic))
		case c < 0x800:
			b.WriteRune(pick(twoBytes))
		case c < 0x10000:
			b.WriteRune(pick(three))
		default:
			b.WriteRune(0x10428 + rune(rng.IntN(40))) // Deseret
		}
	}
	return b.String()
}

// copyCase returns masked the capitals of w, rune by rune.
func copyCase(masked, w string) string {
	out := []rune(masked)
	for i, c := range []rune(w) {
		if i < len(out) && string(c) != strings.ToLower(string(c)) {
			if up := []rune(strings.ToUpper(string(out[i]))); len(up) == 1 && len(string(up)) == len(string(out[i])) {
				out[i] = up[0]
			}
		}
	}
	return string(out)
}
