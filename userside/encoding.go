package userside

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

// unpacked returns a reader of an answer's text: without compression, in UTF-8.
// gzip is known by its magic, for old servers do not announce it; deflate, which
// was not asked for, by its announcement, and so is windows-1251.
func unpacked(raw *bufio.Reader, h http.Header) (io.Reader, error) {
	var r io.Reader = raw
	var err error
	start, _ := raw.Peek(2)
	switch deflated := strings.EqualFold(h.Get("Content-Encoding"), "deflate"); {
	case bytes.Equal(start, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(raw)
	case deflated && len(start) == 2 && start[0]&0x0f == 8 && (int(start[0])<<8|int(start[1]))%31 == 0:
		r, err = zlib.NewReader(raw) // what RFC 9110 means by deflate
	case deflated && len(start) > 0 && start[0] != '{' && start[0] != '[':
		r = flate.NewReader(raw) // what some servers mean by it
	}
	if err != nil {
		return nil, errTruncated
	}
	if isCP1251(h.Get("Content-Type")) {
		r = &cp1251{r: r}
	}
	return r, nil
}

func isCP1251(contentType string) bool {
	_, params, err := mime.ParseMediaType(contentType)
	charset := strings.ToLower(params["charset"])
	return err == nil && (charset == "windows-1251" || charset == "cp1251" || charset == "cp-1251")
}

// cp1251 reads windows-1251 as UTF-8.
type cp1251 struct {
	r    io.Reader
	in   [4 << 10]byte
	out  []byte
	left []byte // of out
	err  error
}

func (c *cp1251) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		var n int
		n, c.err = c.r.Read(c.in[:])
		c.out = c.out[:0]
		for _, b := range c.in[:n] {
			if b < utf8.RuneSelf {
				c.out = append(c.out, b)
			} else {
				c.out = utf8.AppendRune(c.out, cp1251High[b-utf8.RuneSelf])
			}
		}
		c.left = c.out
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

// cp1251High are the characters from 0x80 on.
var cp1251High = []rune("ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\ufffd™љ›њќћџ\u00a0ЎўЈ¤Ґ¦§Ё©Є«¬\u00ad®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя")
