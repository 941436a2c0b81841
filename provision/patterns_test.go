package provision

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPatternsAmong(t *testing.T) {
	exist := []string{"lo", "eth0", "eth1.100", "eth1.101"}
	assert.Equal(t, []string{"eth1.100", "eth1.101"}, Patterns{"eth1.*", "eth1.100"}.Among(exist))
	assert.Equal(t, []string{"eth7"}, Patterns{"eth7", "ppp*"}.Among(exist), "a plain name before it exists, a pattern not")
	assert.Empty(t, Patterns(nil).Among(exist))
}

func TestPatternsMatch(t *testing.T) {
	p := Patterns{"eth1.*", "vlan7"}
	for name, want := range map[string]bool{"eth1.100": true, "vlan7": true, "vlan70": false, "eth1": false} {
		assert.Equal(t, want, p.Match(name), name)
	}
	assert.False(t, Patterns(nil).Match("eth1"))
}
