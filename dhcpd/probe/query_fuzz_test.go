package probe

import (
	"bytes"
	"fmt"
	"testing"
)

// What an operator may type as an option or as bytes.
func FuzzParseOption(f *testing.F) {
	for _, s := range []string{"60=756468637020", "82=01:03:67:65:33", "0=00", "255=00", "60", "=00", "60=0", "60=0x00-04"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = ParseBytes(s)
		_, _ = ParseKind(s)
		_, _ = ParseAnswer(s)
		o, err := ParseOption(s)
		if err != nil {
			return
		}
		again, err := ParseOption(fmt.Sprintf("%d=%x", o.Code, o.Value))
		if err != nil || again.Code != o.Code || !bytes.Equal(again.Value, o.Value) || o.Code == 0 || o.Code == 255 {
			t.Fatalf("%q: %v came back as %v, %v", s, o, again, err)
		}
	})
}
