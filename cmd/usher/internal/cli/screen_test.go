package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"letters of any language", "вул. Садова 5, кв. 7 – ok 👍", "вул. Садова 5, кв. 7 – ok 👍"},
		{"escape sequence", "sw\x1b[2J\x1b]0;title\a", `sw\x1b[2J\x1b]0;title\a`},
		{"eight-bit escape sequence", "a\u009b31mb", `a\u009b31mb`},
		{"line breaks", "a\nb\rc\td\u2028e\u0085f", `a\nb\rc\td\u2028e\u0085f`},
		{"direction", "ab\u202ecd\u2066\u200f", `ab\u202ecd\u2066\u200f`},
		{"invisible", "a\u200bb\u00adc\ufeff", `a\u200bb\u00adc\ufeff`},
		{"no text", "a\xff\xc3", `a\xff\xc3`},
		{"replacement", "a\ufffd", "a\ufffd"},
		{"hard blanks", "a\u00a0b\u3000c", "a b c"},
		{"delete and zero", "a\x7f\x00", `a\x7f\x00`},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, Line(tt.in)) })
	}
}

func TestHarmless(t *testing.T) {
	const evil, good = "a\n\x1b[31mb", `a\n\x1b[31mb`
	type inner struct{ Name string }
	v := struct {
		Text  string
		Many  string `terminal:"lines"`
		List  []string
		In    *inner
		Any   any
		Map   map[string]inner
		Addr  netip.Addr
		Addrs []netip.AddrPort
		Nil   *inner
		own   string
	}{evil, "x\n\t\x1b[2J\ny", []string{evil, "b"}, &inner{evil}, []any{evil}, map[string]inner{evil: {evil}},
		netip.MustParseAddr("fe80::1").WithZone(evil), []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(evil), 1)}, nil, evil}
	Harmless(&v)
	assert.Equal(t, good, v.Text)
	assert.Equal(t, "x\n\t\\x1b[2J\ny", v.Many)
	assert.Equal(t, []string{good, "b"}, v.List)
	assert.Equal(t, good, v.In.Name)
	assert.Equal(t, []any{good}, v.Any)
	assert.Equal(t, map[string]inner{good: {good}}, v.Map)
	assert.Equal(t, "fe80::1%"+good, v.Addr.String())
	assert.Equal(t, good, v.Addrs[0].Addr().Zone())
	assert.Equal(t, evil, v.own)
}

// A cell may be coloured, and holds neither line breaks nor other sequences.
func TestTableKeepsCellsInTheirLine(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Table(&out, [][]string{{"a", "x\nnow forged\ty\x1b[2J"}, {"b", Paint(true).Red("red")}}))
	assert.Equal(t, "a  x\\nnow forged\\ty\\x1b[2J\nb  \x1b[31mred\x1b[0m\n", out.String())
}

// run has a command print through what Execute puts before the terminal.
func run(t *testing.T, print func(cmd *cobra.Command) error) (out, errs string) {
	t.Helper()
	root, _ := NewRoot("test")
	root.AddCommand(&cobra.Command{Use: "x", RunE: func(cmd *cobra.Command, _ []string) error { return print(cmd) }})
	var o, e bytes.Buffer
	root.SetOut(&o)
	root.SetErr(&e)
	Execute(t.Context(), root, []string{"x"})
	return o.String(), e.String()
}

func TestNoCommandHasToThinkOfIt(t *testing.T) {
	out, errs := run(t, func(cmd *cobra.Command) error {
		cmd.Println("name\x1b[2J\u202e")
		return errors.New("bad \x1b]0;x\a")
	})
	assert.Equal(t, "name\\x1b[2J\\u202e\n", out+strings.TrimPrefix(errs, `usher: bad \x1b]0;x\a`+"\n"))
	_, errs = run(t, func(*cobra.Command) error { return &console.StatusError{Text: "no device \"a\nusher: all is well\""} })
	assert.Equal(t, "usher: no device \"a\\nusher: all is well\"\n", errs)
}

// Programs get what is so, byte for byte.
func TestJSONIsUntouched(t *testing.T) {
	const text = "a\x1b[2J\u202e\u009b\n<&>"
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(map[string]string{"name": text}))
	out, _ := run(t, func(cmd *cobra.Command) error { return PrintJSON(cmd.OutOrStdout(), map[string]string{"name": text}) })
	assert.Equal(t, want.String(), out)
	var on map[string]string
	escaped := asciiEscapes(out + " ")
	require.NoError(t, json.Unmarshal([]byte(escaped), &on))
	assert.Equal(t, text, on["name"], "what a terminal gets means the same")
	assert.NotContains(t, escaped, "\u009b")
}

// FuzzScreen proves that nothing but what prints, line breaks, tabs and our own colours reaches a terminal.
func FuzzScreen(f *testing.F) {
	f.Add("plain", 3, true)
	f.Add("\x1b[31mred\x1b[0m\x1b[2J\x1b]0;t\a\x1b", 2, true)
	f.Add("їжак\u202e\xd1", 1, false)
	f.Fuzz(func(t *testing.T, text string, piece int, colour bool) {
		var out bytes.Buffer
		s := &screen{w: &out, colour: colour}
		for rest := text; rest != ""; {
			n := min(max(piece%17, 1), len(rest))
			written, err := s.Write([]byte(rest[:n]))
			require.NoError(t, err)
			require.Equal(t, n, written)
			rest = rest[n:]
		}
		s.flush()
		shown := out.String()
		if !colour {
			require.NotContains(t, shown, "\x1b")
		}
		onlyPrintable(t, shown)
		require.Equal(t, strings.Count(text, "\n"), strings.Count(shown, "\n"))
		var at1 bytes.Buffer
		one := &screen{w: &at1, colour: colour}
		_, _ = one.Write([]byte(text))
		one.flush()
		require.Equal(t, at1.String(), shown, "where it is cut makes no difference")
		onlyPrintable(t, Line(text)+"\n"+cell(text))
		require.NotContains(t, Line(text)+cell(text), "\n")
		require.Equal(t, Line(text), Line(Line(text)))
	})
}

// onlyPrintable fails for anything that may steer a terminal.
func onlyPrintable(t *testing.T, s string) {
	t.Helper()
	for _, c := range colours {
		s = strings.ReplaceAll(s, c, "")
	}
	require.True(t, utf8.ValidString(s), "%q", s)
	for _, r := range s {
		require.True(t, unicode.IsPrint(r) || r == '\n' || r == '\t', "%q in %q", r, s)
	}
}

// The text log quotes by itself, keys too; the JSON log means what was said.
func FuzzLogIsOneLine(f *testing.F) {
	f.Add("interface", "eth0\x1b[2J\n time=x level=INFO")
	f.Add("interface", "sw\u009b2J\u202e\u200b\u2028")
	f.Add("\x7f", "eth0\x7f")
	f.Add("K", "0")
	f.Fuzz(func(t *testing.T, key, value string) {
		var out bytes.Buffer
		NewLogger(&out, "text", nil).Info(value, key, value, "error", errors.New(value))
		onlyPrintable(t, out.String())
		require.Equal(t, 1, strings.Count(out.String(), "\n"))

		out.Reset()
		NewLogger(&out, "json", nil).Info("x", "k", value, "error", errors.New(value), key, 1)
		line := strings.TrimSuffix(out.String(), "\n")
		for _, r := range line {
			require.True(t, unicode.IsGraphic(r), "%q in %q", r, line)
		}
		said := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(line), &said))
		if utf8.ValidString(value) && key != "k" && key != "error" {
			require.Equal(t, value, said["k"])
			require.Equal(t, value, said["error"])
		}
	})
}

func TestBeneath(t *testing.T) {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	require.Equal(t, f, Beneath(newScreen(newScreen(f))))
	require.False(t, IsTerminal(newScreen(f)))
}
