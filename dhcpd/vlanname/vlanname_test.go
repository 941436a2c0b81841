package vlanname

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		template, name string
		want           uint16 // 0: no match
	}{
		{"eth1.{vlan}", "eth1.100", 100},
		{"eth1.{vlan}", "eth1.0100", 100},
		{"eth1.{vlan}", "eth1.4094", 4094},
		{"eth1.{vlan}", "eth1.4095", 0},
		{"eth1.{vlan}", "eth1.0", 0},
		{"eth1.{vlan}", "eth1.", 0},
		{"eth1.{vlan}", "eth1.00100", 100},
		{"eth1.{vlan}", "eth1.000100", 0},
		{"eth1.{vlan}", "eth1.100.7", 0},
		{"eth1.{vlan}", "eth10.100", 0},
		{"eth1.{vlan}", "xeth1.100", 0},
		{"vlan{vlan}", "vlan7", 7},
		{"vlan{vlan}", "vlan", 0},
		{"eth1.{svlan}.{vlan}", "eth1.20.100", 100},
		{"eth1.{svlan}.{vlan}", "eth1.0.100", 0},
		{"eth1.{svlan}.{vlan}", "eth1.100", 0},
		{"c{vlan}-s{svlan}", "c5-s20", 5},
		{"{vlan}.lan", "12.lan", 12},
	} {
		t.Run(tc.template+" "+tc.name, func(t *testing.T) {
			tpl, err := Compile(tc.template)
			require.NoError(t, err)
			vlan, ok := tpl.Match(tc.name)
			assert.Equal(t, tc.want != 0, ok)
			if ok {
				assert.Equal(t, tc.want, vlan)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"":                   "no {vlan}",
		"eth1":               "no {vlan}",
		"eth1.{svlan}":       "no {vlan}",
		"{vlan}":             "want some text",
		"eth1.{vlan":         "want {vlan} or {svlan}",
		"eth1.{port}":        "want {vlan} or {svlan}",
		"eth1.}{vlan}":       "want the name of an interface",
		"eth1/{vlan}":        "want the name of an interface",
		"eth1.{vlan}.{vlan}": "{vlan} twice",
		"e{svlan}{vlan}":     "side by side",
		"e{vlan}0":           "a digit follows",
	} {
		_, err := Compile(s)
		assert.ErrorContains(t, err, want, s)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("eth1.{svlan}.{vlan}", "eth1.20.100")
	f.Add("vlan{vlan}", "vlan7")
	f.Fuzz(func(t *testing.T, template, name string) {
		tpl, err := Compile(template)
		if err != nil {
			return
		}
		if vlan, ok := tpl.Match(name); ok {
			require.NotZero(t, vlan)
			require.LessOrEqual(t, vlan, uint16(4094))
		}
	})
}
