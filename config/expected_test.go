package config

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/syncer"
)

func TestGuardExpected(t *testing.T) {
	parse := func(list string) (*Config, error) {
		return Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nguard: {expected: "+list+"}\n"), testEnv())
	}
	cfg, err := parse("[{days: [1, 2], hours: 22:00-06:00, changes: [blocked], share: 60%}, {share: 30%}]")
	require.NoError(t, err)
	assert.Equal(t, []syncer.ExpectedChanges{
		{Days: []int{1, 2}, Hours: syncer.DayHours{From: 22 * time.Hour, To: 6 * time.Hour}, Changes: []syncer.ChangeKind{syncer.ChangeBlocked}, Share: 0.6},
		{Hours: syncer.DayHours{To: 24 * time.Hour}, Changes: []syncer.ChangeKind{syncer.ChangeBlocked, syncer.ChangeOpened}, Share: 0.3},
	}, cfg.Guard.Expected)
	for list, want := range map[string]string{
		"[{days: [32], share: 60%}]":             "guard.expected[0].days[0]: 32 is outside 1 to 31",
		"[{hours: 6-7, share: 60%}]":             `guard.expected[0].hours: want hours such as 22:00-06:00, got "6-7"`,
		"[{changes: [pause], share: 60%}]":       `guard.expected[0].changes[0]: "pause" is not one of removed, moved, blocked, opened, added`,
		"[{changes: [], share: 60%}]":            "guard.expected[0].changes: it would expect nothing;",
		"[{days: [1]}]":                          "guard.expected[0].share: missing; want a percentage such as 60%",
		"[{days: [1], share: 5}]":                `guard.expected[0].share: want a percentage such as 10%, got "5"`,
		"[{day: 1, share: 60%}]":                 "guard.expected[0].day: unknown key, did you mean days?",
		"[{days: [1, 1], share: 60%}]":           "1 is in the list twice",
		"[{days: 1, share: 60%}]":                "guard.expected[0].days: want a list, got a number",
		"[{hours: '24:00-06:00', share: 2000%}]": "guard.expected[0].share: 2000% is outside 0% to 1000%",
	} {
		_, err := parse(list)
		assert.ErrorContains(t, err, want, list)
	}
}
