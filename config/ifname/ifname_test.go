package ifname

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestDistanceOfPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          int
	}{
		{"eth1", "eth1", 0}, {"eth1", "eth2", 1}, {"eth", "eth2", 1}, {"eth12", "eth2", 1}, {"eth?", "eth2", 0}, {"eth1.*", "eth1.100", 0},
		{"eth1.*", "eth2.100", 1}, {"eth1.{vlan}", "eth1.7", 0}, {"e{svlan}.{vlan}", "e1.2", 0}, {"*", "", 0}, {"", "lo", 2}, {"lo", "", 2},
	} {
		assert.Equal(t, tt.want, distance(tt.pattern, tt.name), "%s %s", tt.pattern, tt.name)
	}
}
