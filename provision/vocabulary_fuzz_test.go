package provision_test

import (
	"net"
	"testing"

	"github.com/usher-agent/usher/provision"
)

// Every spelling that the standard library reads means the same here, and what is
// read comes back from its own text.
func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{"", "00:00:5e:00:53:01", "00-00-5E-00-53-01", "0000.5e00.5301", "00005e005301", "ff:ff:ff:ff:ff:ff", "00:00:5e:00:53", "zz:00:5e:00:53:01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := provision.ParseMAC(s)
		if std, stdErr := net.ParseMAC(s); stdErr == nil && len(std) == len(m) {
			if err != nil || m != provision.MAC(std) && !m.IsZero() {
				t.Fatalf("%q: %v, %v; want %v", s, m, err, std)
			}
		}
		if err != nil {
			return
		}
		if again, err := provision.ParseMAC(m.String()); err != nil || again != m {
			t.Fatalf("%q: %v came back as %v, %v", s, m, again, err)
		}
	})
}
