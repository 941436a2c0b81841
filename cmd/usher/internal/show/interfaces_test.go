package show

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/console"
)

// A status tells of names that no interface has, and of interfaces that no source guard looks at, with what comes of that.
func TestInterfaceRows(t *testing.T) {
	for name, tt := range map[string]struct {
		config *console.ConfigStatus
		want   [][]string
	}{
		"no configuration": {},
		"all is well":      {config: &console.ConfigStatus{}},
		"one is missing": {
			config: &console.ConfigStatus{MissingInterfaces: []string{"usher.yaml:7:16: dhcp.interfaces[0]: no interface is called eth9"}},
			want:   [][]string{{"interfaces", "usher.yaml:7:16: dhcp.interfaces[0]: no interface is called eth9"}},
		},
		"more are missing than are shown": {
			config: &console.ConfigStatus{MissingInterfaces: []string{"a", "b", "c", "d", "e", "f", "g"}},
			want:   [][]string{{"interfaces", "a"}, {"", "b"}, {"", "c"}, {"", "d"}, {"", "e"}, {"", "and 2 more names that no interface has"}},
		},
		"one is not guarded": {
			config: &console.ConfigStatus{Unguarded: []string{"eth1"}},
			want: [][]string{
				{"unguarded", "no source guard on eth1, where subscribers are: a blocked one is online as soon as it"},
				{"", "takes a free address (acl.source_guard)"},
			},
		},
		"many are not guarded, and one is missing": {
			config: &console.ConfigStatus{MissingInterfaces: []string{"a"},
				Unguarded: []string{"eth1.1", "eth1.2", "eth1.3", "eth1.4", "eth1.5", "eth1.6", "eth1.7", "eth1.8", "eth1.9", "eth1.10"}},
			want: [][]string{
				{"interfaces", "a"},
				{"unguarded", "no source guard on eth1.1, eth1.2, eth1.3, eth1.4, eth1.5, eth1.6, eth1.7, eth1.8 and 2"},
				{"", "more, where subscribers are: a blocked one is online as soon as it takes a free address"},
				{"", "(acl.source_guard)"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, interfaceRows(false, tt.config)) })
	}
}
