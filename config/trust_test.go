package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config/keys"
)

// trustOf reads what follows dhcp: in a file, beside a subnet, and gives its warnings.
func trustOf(t *testing.T, dhcp string) []keys.Problem {
	t.Helper()
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp:\n  subnets: [{prefix: 198.51.100.0/24, gateway: 198.51.100.1}]\n"+dhcp), testEnv())
	require.NoError(t, err)
	return cfg.Warnings
}

// Where option 82 is believed without a relay has no silent default: the file is taken, and a
// warning asks for the answer.
func TestTrustedInterfacesAreAskedFor(t *testing.T) {
	const relays = "  relays: [192.0.2.7]\n  check_relay_source: true\n  option82_relays: all\n"
	for name, tt := range map[string]struct {
		dhcp  string
		asked string   // how the reason begins; empty: nobody is asked
		paste []string // the first of the lines
	}{
		"left out":                 {"  interfaces: [eth1, \"eth2.*\"]\n", "missing, and dhcp.match has option82", []string{"trusted_interfaces: [eth1, 'eth2.*']", "trusted_interfaces: none"}},
		"nothing to guess by":      {"", "missing, and", []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}},
		"an empty list":            {"  trusted_interfaces: []\n", "an empty list says nothing, and", []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}},
		"null":                     {"  trusted_interfaces:\n", "missing, and", []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}},
		"by match":                 {"  match: [mac, option82]\n", "missing, and", []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}},
		"joined":                   {"  match: [option82+mac]\n", "missing, and", []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}},
		"a list":                   {"  trusted_interfaces: [eth1]\n", "", nil},
		"none":                     {"  trusted_interfaces: none\n", "", nil},
		"none in a list":           {"  trusted_interfaces: [none]\n", "", nil},
		"option 82 is not read":    {"  match: [mac]\n", "", nil},
		"an interface called none": {"  trusted_interfaces: ['[n]one']\n", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := trustOf(t, relays+tt.dhcp)
			if tt.asked == "" {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			assert.Equal(t, "dhcp.trusted_interfaces", got[0].Key)
			assert.True(t, strings.HasPrefix(got[0].Reason, tt.asked), got[0].Reason)
			assert.True(t, got[0].Unanswered)
			assert.Equal(t, tt.paste, got[0].Paste)
			for _, line := range got[0].Paste {
				again := trustOf(t, relays+strings.ReplaceAll(tt.dhcp, "trusted_interfaces:", "# ")+"  "+line+"\n")
				assert.Empty(t, again, "pasted")
			}
		})
	}
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\n"), testEnv())
	require.NoError(t, err)
	assert.Empty(t, cfg.Warnings, "nobody is answered")
}

// Nor has whose word the option 82 is that comes through a relay.
func TestOption82RelaysAreAskedFor(t *testing.T) {
	const stated = "  trusted_interfaces: none\n  check_relay_source: true\n"
	all, none := "option82_relays: all", "option82_relays: none"
	for name, tt := range map[string]struct {
		dhcp  string
		asked string   // how the reason begins; empty: nobody is asked
		paste []string // the lines
	}{
		"left out":              {"  relays: [192.0.2.7, 203.0.113.0/28]\n", "missing, and dhcp.match has option82", []string{"option82_relays: [192.0.2.7, 203.0.113.0/28]", all, none}},
		"an empty list":         {"  relays: [192.0.2.7]\n  option82_relays: []\n", "an empty list says nothing, and", []string{"option82_relays: [192.0.2.7]", all, none}},
		"null":                  {"  relays: [192.0.2.7]\n  option82_relays:\n", "missing, and", []string{"option82_relays: [192.0.2.7]", all, none}},
		"no relay is listed":    {"", "missing, and", []string{all, none}},
		"joined":                {"  relays: [192.0.2.7]\n  match: [option82+mac]\n", "missing, and", []string{"option82_relays: [192.0.2.7]", all, none}},
		"a list":                {"  relays: [192.0.2.7]\n  option82_relays: [192.0.2.7]\n", "", nil},
		"all":                   {"  relays: [192.0.2.7]\n  option82_relays: all\n", "", nil},
		"none":                  {"  relays: [192.0.2.7]\n  option82_relays: none\n", "", nil},
		"none in a list":        {"  relays: [192.0.2.7]\n  option82_relays: [none]\n", "", nil},
		"option 82 is not read": {"  relays: [192.0.2.7]\n  match: [mac]\n", "", nil},
		"no relay can be":       {"  interfaces: [eth1]\n  subscriber_interfaces: [eth1]\n", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			of := func(dhcp string) (got []keys.Problem) {
				for _, w := range trustOf(t, stated+dhcp) {
					if w.Key != "dhcp.relays" { // none is listed
						got = append(got, w)
					}
				}
				return got
			}
			got := of(tt.dhcp)
			if tt.asked == "" {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			assert.Equal(t, "dhcp.option82_relays", got[0].Key)
			assert.True(t, strings.HasPrefix(got[0].Reason, tt.asked), got[0].Reason)
			assert.True(t, got[0].Unanswered)
			assert.Equal(t, tt.paste, got[0].Paste)
			for _, line := range got[0].Paste {
				assert.Empty(t, of(strings.ReplaceAll(tt.dhcp, "option82_relays:", "# ")+"  "+line+"\n"), "pasted")
			}
		})
	}
	got := trustOf(t, stated+"  relays: [192.0.2.0/28]\n  option82_relays: [192.0.2.0/24, 192.0.2.7, 192.0.2.77]\n")
	require.Len(t, got, 1)
	assert.Equal(t, "usher.yaml:7:46: dhcp.option82_relays[2]: dhcp.relays has none of it, so nothing comes through it", got[0].String())
	assert.False(t, got[0].Unanswered)
}

func TestRelaysAreWarnedOf(t *testing.T) {
	const trusted = "  trusted_interfaces: none\n  option82_relays: none\n"
	for name, tt := range map[string]struct {
		dhcp string
		want []string // place, key and a part of the reason of each
	}{
		"none listed":                  {"  interfaces: [eth1]\n", []string{"2:1: dhcp.relays: none listed: whoever reaches port 67 can pose as a relay"}},
		"an empty list":                {"  relays: []\n", []string{"6:11: dhcp.relays: none listed"}},
		"none can be":                  {"  interfaces: [eth1, \"eth2.*\"]\n  subscriber_interfaces: [\"eth2.*\", eth1, eth3]\n", nil},
		"some can be":                  {"  interfaces: [eth1, eth2]\n  subscriber_interfaces: [eth2]\n", []string{"dhcp.relays: none listed"}},
		"all interfaces are served":    {"  subscriber_interfaces: [\"*\"]\n", []string{"dhcp.relays: none listed"}},
		"source not asked":             {"  relays: [192.0.2.7]\n", []string{"2:1: dhcp.check_relay_source: missing"}},
		"source not wanted":            {"  relays: [192.0.2.7]\n  check_relay_source: false\n", nil},
		"one among subscribers":        {"  check_relay_source: true\n  relays: [192.0.2.7, 198.51.100.2]\n", []string{"7:23: dhcp.relays[1]: 198.51.100.2 lies in 198.51.100.0/24, which dhcp.subnets has for subscribers: nothing in IP tells"}},
		"their gateway":                {"  check_relay_source: true\n  relays: [198.51.100.1]\n", nil},
		"a network of subscribers":     {"  check_relay_source: true\n  relays: [198.51.0.0/16]\n", []string{"7:12: dhcp.relays[0]: it covers subscribers of 198.51.100.0/24"}},
		"a part of their network":      {"  check_relay_source: true\n  relays: [198.51.100.0/29]\n", []string{"dhcp.relays[0]: it covers subscribers of 198.51.100.0/24"}},
		"a network beside subscribers": {"  check_relay_source: true\n  relays: [192.0.2.0/24]\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := trustOf(t, trusted+tt.dhcp)
			require.Len(t, got, len(tt.want), "%v", got)
			for i, w := range got {
				assert.Contains(t, w.String(), tt.want[i])
				assert.False(t, w.Unanswered)
			}
		})
	}
}

// Every key that names interfaces is looked at, if its part runs.
func TestInterfaceWarnings(t *testing.T) {
	text := head + `dhcp:
  interfaces: [eth1, "eth2.*", eth9]
  relays: [192.0.2.7]
  check_relay_source: true
  subscriber_interfaces: ["vlan?", eht1]
  trusted_interfaces: [eth1, swp1]
  match: [option82, vlan, mac]
  vlan_interfaces: ["eth3.{vlan}", "bond0.{svlan}.{vlan}"]
  subnets: [{prefix: 198.51.100.0/24}]
acl: {source_guard: {direct: [lan0], vlan: ["eth3.*"]}}
routes: {enabled: ROUTES, interfaces: [eth4]}
neighbours: {enabled: NEIGHBOURS, interfaces: ["br*"]}
`
	warnings := func(on string) []string {
		cfg, err := Parse("usher.yaml", []byte(strings.NewReplacer("ROUTES", on, "NEIGHBOURS", on).Replace(text)), testEnv())
		require.NoError(t, err)
		assert.Empty(t, cfg.InterfaceWarnings(nil, nil), "nothing is known of the host")
		var out []string
		for _, w := range cfg.InterfaceWarnings([]string{"lo", "eth1", "eth3.100"}, nil) {
			out = append(out, w.String())
		}
		return out
	}
	want := []string{
		`usher.yaml:3:22: dhcp.interfaces[1]: no interface of this host fits "eth2.*", did you mean eth3.100?`,
		`usher.yaml:3:32: dhcp.interfaces[2]: no interface of this host fits "eth9", did you mean eth1?`,
		`usher.yaml:6:27: dhcp.subscriber_interfaces[0]: no interface of this host fits "vlan?"; it has lo, eth1, eth3.100`,
		`usher.yaml:6:36: dhcp.subscriber_interfaces[1]: no interface of this host fits "eht1", did you mean eth1?`,
		`usher.yaml:7:30: dhcp.trusted_interfaces[1]: no interface of this host fits "swp1"; it has lo, eth1, eth3.100`,
		`usher.yaml:9:36: dhcp.vlan_interfaces[1]: no interface of this host fits "bond0.{svlan}.{vlan}"; it has lo, eth1, eth3.100`,
		`usher.yaml:11:31: acl.source_guard.direct[0]: no interface of this host fits "lan0"; it has lo, eth1, eth3.100`,
	}
	assert.Equal(t, want, warnings("false"))
	want = append(want,
		`usher.yaml:12:38: routes.interfaces[0]: no interface of this host fits "eth4", did you mean eth1?`,
		`usher.yaml:13:42: neighbours.interfaces[0]: no interface of this host fits "br*"; it has lo, eth1, eth3.100`)
	assert.Equal(t, want, warnings("true"))
}

// A name that only fits what an interface is called besides is no good one: packets come in under its
// own name.
func TestAlternativeNames(t *testing.T) {
	text := head + `dhcp:
  interfaces: [eth0, wan0, "enp*", "e*"]
  relays: [192.0.2.7]
  check_relay_source: true
  trusted_interfaces: none
  match: [vlan, mac]
  vlan_interfaces: ["port{vlan}"]
  subnets: [{prefix: 198.51.100.0/24}]
`
	cfg, err := Parse("usher.yaml", []byte(text), testEnv())
	require.NoError(t, err)
	var got []string
	for _, w := range cfg.InterfaceWarnings([]string{"lo", "eth0", "eth1", "sfp1"}, map[string]string{"wan0": "eth1", "enp3s0": "eth0", "enp4s0": "sfp1", "port7": "sfp1"}) {
		got = append(got, w.String())
		assert.Equal(t, !strings.Contains(w.Key, "[3]"), w.Unanswered, "%s: it means some interface", w)
	}
	assert.Equal(t, []string{
		`usher.yaml:3:22: dhcp.interfaces[1]: wan0 is another name (altname) of eth1, and interfaces are known here by their one name: write eth1`,
		`usher.yaml:3:28: dhcp.interfaces[2]: "enp*" does not mean eth0, whose other name (altname) enp3s0 fits: interfaces are known here by their one name. Write eth0, too, if it is meant`,
		`usher.yaml:3:36: dhcp.interfaces[3]: "e*" does not mean sfp1, whose other name (altname) enp4s0 fits: interfaces are known here by their one name. Write sfp1, too, if it is meant`,
		`usher.yaml:8:21: dhcp.vlan_interfaces[0]: "port{vlan}" does not mean sfp1, whose other name (altname) port7 fits: interfaces are known here by their one name. Rename it if it is meant`,
	}, got)
}

func TestInterfaceCalledNone(t *testing.T) {
	for trusted, want := range map[string]string{
		"none": "none is the word for no interface", "[none]": "none is the word for no interface", "['[n]one']": "",
	} {
		cfg, err := Parse("usher.yaml", []byte(head+"dhcp:\n  trusted_interfaces: "+trusted+"\n  subnets: [{prefix: 198.51.100.0/24}]\n"), testEnv())
		require.NoError(t, err)
		assert.Equal(t, want == "", len(cfg.InterfaceWarnings([]string{"lo"}, nil)) == 1, "without such an interface only the pattern fits nothing")
		got := cfg.InterfaceWarnings([]string{"lo", "none"}, nil)
		if want == "" {
			assert.Empty(t, got, trusted)
			continue
		}
		require.Len(t, got, 1, trusted)
		assert.Contains(t, got[0].Reason, want)
		assert.Equal(t, []string{"trusted_interfaces: ['[n]one']"}, got[0].Paste)
	}
}
