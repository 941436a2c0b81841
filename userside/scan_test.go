package userside

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// scanAll reads one document with the scanner into the types of encoding/json.
func scanAll(r io.Reader) (any, error) {
	s := newScanner(r)
	var t tree
	v, err := t.read(s)
	if err != nil {
		return nil, err
	}
	if err := s.finish(); err != nil {
		return nil, err
	}
	return plain(v), nil
}

func plain(v value) any {
	switch v.kind() {
	case kindNull:
		return nil
	case kindBool:
		return v.bytes()[0] == '1'
	case kindNumber:
		return json.Number(v.bytes())
	case kindString:
		return string([]rune(string(v.bytes()))) // one U+FFFD per bad byte, as encoding/json does
	case kindArray:
		out := []any{}
		for m := range v.all {
			out = append(out, plain(m))
		}
		return out
	case kindObject:
		out := map[string]any{}
		for m := range v.all {
			out[string([]rune(string(m.key())))] = plain(m)
		}
		return out
	}
	return errors.New("absent")
}

var scannerSeeds = []string{
	`{"result":"OK","data":[{"ip":"167772170","mac":"","port":5,"x":null,"y":true,"z":false}]}`,
	` [ 1 , -0 , 1.5e+3, 0.10, 1E-2 ] `, `""`, `"\u00e9\ud83d\ude00\ud83dx\udE00\ud800\ud800\udc00\n\/\\\""`, `{"a":{"b":[[],{}]},"a":2}`,
	"\"\xff\xfe\"", `01`, `1.`, `-`, `+1`, `.5`, `1e`, `tru`, `nul`, `[1,]`, `{"a"}`, `{"a":}`, `{,}`, `[,1]`, `{"a":1,}`, `"a`, `"\x"`, `"\u12"`, "\"a\tb\"",
	`[1 2]`, `1 2`, `{"a":1}}`, ``, ` `, `[`, `{`, `"\ud83d`, `"\ud83d\`, `"\ud83d\u`, `truefalse`, `{1:2}`, `[1}`,
}

func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	for _, doc := range scannerSeeds {
		compareScanners(t, []byte(doc))
	}
}

func compareScanners(t *testing.T, doc []byte) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var want any
	wantErr := d.Decode(&want)
	if wantErr == nil {
		if _, err := d.Token(); err != io.EOF {
			wantErr = errors.New("text after the document")
		}
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(doc), "bytewise": iotest.OneByteReader(bytes.NewReader(doc)),
	} {
		got, err := scanAll(r)
		if err != nil && strings.Contains(err.Error(), "nested too deep") {
			continue
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s: %q: got error %v, encoding/json says %v", name, doc, err, wantErr)
		}
		if err == nil {
			require.Equal(t, want, got, "%s: %q", name, doc)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range scannerSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) { compareScanners(t, doc) })
}

func TestScannerErrors(t *testing.T) {
	broken := errors.New("line cut")
	tests := map[string]struct {
		r    io.Reader
		want string
	}{
		"truncated":         {strings.NewReader(`{"a":[1,`), "truncated"},
		"truncated text":    {strings.NewReader(`{"a":"b`), "truncated"},
		"too deep":          {strings.NewReader(strings.Repeat("[", maxDepth+1)), "nested too deep at byte " + strconv.Itoa(maxDepth)},
		"reader fails":      {io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(broken)), "line cut"},
		"reader stalls":     {iotest.ErrReader(nil), io.ErrNoProgress.Error()},
		"text behind":       {strings.NewReader(`{} x`), "text after the document at byte 3"},
		"control character": {strings.NewReader("[\"a\nb\"]"), "control character in a string at byte 3"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := scanAll(tt.r)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// Offsets count over several buffers.
func TestScannerOffsetFarIn(t *testing.T) {
	doc := `["` + strings.Repeat("x", 200_000) + `",?]`
	_, err := scanAll(strings.NewReader(doc))
	var syntax *syntaxError
	require.ErrorAs(t, err, &syntax)
	require.EqualValues(t, strings.IndexByte(doc, '?'), syntax.offset)
}
