package config

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func TestPolicy(t *testing.T) {
	const allow, pause, stop = provision.StateActive, provision.StatePause, provision.StateStop
	usual := provision.Policy{
		States: map[int]provision.State{0: stop, 1: pause, 2: allow}, Other: provision.StateUnknown,
		Disabled: stop, Potential: stop, NotInBilling: allow, Former: stop,
	}
	with := func(change func(*provision.Policy)) provision.Policy {
		p := usual
		p.States = map[int]provision.State{0: stop, 1: pause, 2: allow}
		change(&p)
		return p
	}
	tests := map[string]struct {
		text, wantErr string
		want          provision.Policy
		warnings      int
	}{
		"absent":            {"", "", usual, 0},
		"empty":             {"{}", "", usual, 0},
		"further states":    {"{states: {5: pause, 7: allow}}", "", with(func(p *provision.Policy) { p.States[5], p.States[7] = pause, allow }), 0},
		"one further":       {"\n  states:\n    5: pause\n", "", with(func(p *provision.Policy) { p.States[5] = pause }), 0},
		"quoted numbers":    {`{states: {"5": pause}}`, "", with(func(p *provision.Policy) { p.States[5] = pause }), 0},
		"stop is a pause":   {"{states: {0: pause}}", "", with(func(p *provision.Policy) { p.States[0] = pause }), 0},
		"active is blocked": {"{states: {2: stop}}", "", with(func(p *provision.Policy) { p.States[2] = stop }), 1},
		"others":            {"{other_states: pause}", "", with(func(p *provision.Policy) { p.Other = pause }), 0},
		"flags": {"{disabled: pause, potential: allow, not_in_billing: stop, former: allow}", "", with(func(p *provision.Policy) {
			p.Disabled, p.Potential, p.NotInBilling, p.Former = pause, allow, stop, allow
		}), 0},
		"states as a list":   {"{states: [stop, pause]}", "policy.states: want a mapping of state numbers", provision.Policy{}, 0},
		"word for a number":  {"{states: {active: allow}}", `policy.states: want the number of a state from 0 to 9999 as the key, got "active"`, provision.Policy{}, 0},
		"negative":           {"{states: {-1: allow}}", "want the number of a state from 0 to 9999", provision.Policy{}, 0},
		"twice":              {"{states: {5: allow, 5: stop}}", "policy.states: state 5 is given twice", provision.Policy{}, 0},
		"twice, one quoted":  {`{states: {5: allow, "05": stop}}`, "state 5 is given twice", provision.Policy{}, 0},
		"wrong word":         {"{states: {5: alow}}", `policy.states.5: "alow" is not one of allow, pause, stop, did you mean allow?`, provision.Policy{}, 0},
		"nothing said":       {"{states: {5: }}", "policy.states.5: missing; want allow, pause or stop", provision.Policy{}, 0},
		"unknown for a flag": {"{disabled: unknown}", "policy.disabled", provision.Policy{}, 0},
		"unknown key":        {"{disable: stop}", "policy.disable: unknown key, did you mean disabled?", provision.Policy{}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := head + "dhcp: {enabled: false}\n"
			if tt.text != "" {
				text += "policy: " + tt.text + "\n"
			}
			cfg, err := Parse("usher.yaml", []byte(text), testEnv())
			if tt.wantErr != "" {
				require.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, cfg.Policy)
			assert.Len(t, cfg.Warnings, tt.warnings)
		})
	}
}

func TestTheDefaultsAreTheDefaultPolicy(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\npolicy: {states: {5: pause}}\n"), testEnv())
	require.NoError(t, err)
	want := provision.DefaultPolicy()
	want.States[5] = provision.StatePause
	assert.Equal(t, want, cfg.Policy)
	_, err = Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\npolicy: {states: {0: halt}}\n"), testEnv())
	require.ErrorContains(t, err, `"halt"`)
}

func TestHooks(t *testing.T) {
	on := netip.MustParseAddrPort("127.0.0.1:9468")
	tests := map[string]struct {
		text, credentials, wantErr string
		listen                     netip.AddrPort
		warnings                   int
	}{
		"absent":                       {},
		"off":                          {text: "{listen: off}"},
		"off needs no secret":          {text: "{listen: off, secret_file: /nowhere}"},
		"file":                         {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/hook.secret}", listen: on},
		"credential":                   {text: "{listen: '127.0.0.1:9468'}", credentials: "/cred", listen: on},
		"file of root, and credential": {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/root.key}", credentials: "/cred", listen: on},
		"file of root alone":           {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/root.key}", wantErr: "hooks.secret_file: the file cannot be read: permission denied"},
		"no secret":                    {text: "{listen: '127.0.0.1:9468'}", wantErr: "hooks.secret_file: missing; want the absolute path"},
		"short":                        {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/short.secret}", wantErr: "hooks.secret_file: the secret has fewer than 16 characters"},
		"empty file":                   {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/empty.key}", wantErr: "hooks.secret_file: the secret is empty"},
		"readable by all":              {text: "{listen: '127.0.0.1:9468', secret_file: /etc/usher/open.key}", wantErr: "everybody on this host can read the file"},
		"secret in place of the path":  {text: "{listen: '127.0.0.1:9468', secret_file: " + testSecret + "}", wantErr: "hooks.secret_file: want the absolute path"},
		"everywhere":                   {text: "{listen: '0.0.0.0:9468', secret_file: /etc/usher/hook.secret}", listen: netip.MustParseAddrPort("0.0.0.0:9468"), warnings: 1},
		"everywhere, but one caller":   {text: "{listen: '0.0.0.0:9468', secret_file: /etc/usher/hook.secret, allow: [192.0.2.7]}", listen: netip.MustParseAddrPort("0.0.0.0:9468")},
		"window too short":             {text: "{window: 1s}", wantErr: "hooks.window: 1s is outside 5s to 10m"},
		"allow with host bits":         {text: "{allow: [192.0.2.7/24]}", wantErr: "hooks.allow[0]: 192.0.2.7/24 has host bits set, did you mean 192.0.2.0/24?"},
		"allow nonsense":               {text: "{allow: [erp]}", wantErr: `hooks.allow[0]: want a prefix such as 192.0.2.0/24 or an address, got "erp"`},
		"listen nonsense":              {text: "{listen: 9468}", wantErr: "hooks.listen: want an IP address with a port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := head + "dhcp: {enabled: false}\n"
			if tt.text != "" {
				text += "hooks: " + tt.text + "\n"
			}
			env := testEnv()
			env.CredentialsDir = tt.credentials
			cfg, err := Parse("usher.yaml", []byte(text), env)
			if tt.wantErr != "" {
				require.ErrorContains(t, err, tt.wantErr)
				assert.NotContains(t, err.Error(), testSecret)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.listen, cfg.Hooks.Listen)
			if tt.listen.IsValid() {
				assert.Equal(t, testSecret, cfg.Hooks.Secret.Reveal())
			}
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", cfg, cfg.Hooks, cfg.Hooks), testSecret)
			assert.Len(t, cfg.Warnings, tt.warnings)
		})
	}
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nhooks: {allow: [192.0.2.7, '2001:db8::/32', '::ffff:192.0.2.8']}\n"), testEnv())
	require.NoError(t, err)
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.8/32")}, cfg.Hooks.Allow)
}

func TestRefreshInterval(t *testing.T) {
	tests := map[string]struct {
		text string
		want time.Duration
	}{
		"ten polls":              {"poll_interval: 5s", 50 * time.Second},
		"not above ten minutes":  {"poll_interval: 2m", 10 * time.Minute},
		"unless polls are rarer": {"poll_interval: 1h", time.Hour},
		"given":                  {"poll_interval: 5s, refresh_interval: 7s", 7 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := Parse("usher.yaml", []byte("userside: {url: 'https://erp.example.net/api.php', key_file: /etc/usher/userside.key, "+tt.text+"}\ndhcp: {enabled: false}\n"), testEnv())
			require.NoError(t, err)
			assert.Equal(t, tt.want, cfg.ERP.Sync.RefreshInterval)
		})
	}
}

func TestParseAccess(t *testing.T) {
	for word, want := range map[string]provision.State{"allow": provision.StateActive, "pause": provision.StatePause, "stop": provision.StateStop, "unknown": provision.StateUnknown} {
		got, err := parseAccess(word)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := parseAccess("active")
	assert.ErrorContains(t, err, `"active": want allow, pause, stop or unknown`)
}
