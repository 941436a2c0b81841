package keys

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type inner struct {
	B int           `cfg:"b" min:"0" max:"9" default:"3"`
	D time.Duration `cfg:"d" after:"a" min:"1s" max:"1h" default:"1m"`
	E []string      `cfg:"e" unique:"true" most:"2"`
}

type color uint8

func (color) Words() []string { return []string{"", "red", "blue"} }

type outer struct {
	inner `cfg:",inline" after:"c"`
	A     string `cfg:"a" required:"a name"`
	C     color  `cfg:"c" default:"red" restart:"true"`
	Sub   struct {
		X bool `cfg:"x" default:"true"`
	} `cfg:"sub"`
}

type noRules struct{}

func (noRules) Reader(string, Key) (Reader, bool) { return Reader{}, false }
func (noRules) Begin(Mapping, any)                {}
func (noRules) Together(Mapping, any)             {}

func TestOrderOfKeys(t *testing.T) {
	var names []string
	for _, k := range Of(reflect.TypeFor[outer]()) {
		names = append(names, k.Name)
	}
	assert.Equal(t, []string{"a", "d", "e", "c", "b", "sub"}, names)
}

func TestRead(t *testing.T) {
	var o outer
	_, err := Read("x.yaml", []byte("a: n\nc: blue\ne: [p, q]\n"), &o, noRules{})
	require.NoError(t, err)
	want := outer{inner: inner{B: 3, D: time.Minute, E: []string{"p", "q"}}, A: "n", C: 2}
	want.Sub.X = true
	assert.Equal(t, want, o)

	o = outer{}
	_, err = Read("x.yaml", []byte("b: 10\nc: green\nd: 2\ne: [p, p, q, r]\nsub: {y: 1}\n"), &o, noRules{})
	require.EqualError(t, err, `x.yaml:1:1: a: missing; want a name
x.yaml:1:4: b: 10 is outside 0 to 9
x.yaml:2:4: c: "green" is not one of red, blue
x.yaml:3:4: d: want a duration with a unit, such as 30s, 5m or 12h, got "2"
x.yaml:4:4: e: 3 of them; want at most 2
x.yaml:4:8: e[1]: p is in the list twice
x.yaml:5:7: sub.y: unknown key`)
}

func TestRestart(t *testing.T) {
	a, b := &outer{A: "x"}, &outer{A: "y"}
	assert.Empty(t, Restart(a, b))
	b.C = 2
	assert.Equal(t, []string{"c"}, Restart(a, b))
}
