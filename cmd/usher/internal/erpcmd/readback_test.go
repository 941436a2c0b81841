package erpcmd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside/emulator"
)

// What became of a change of state whose answer was lost, or a hook's own, is looked up on the customer's card.
func TestStateChangeIsReadBack(t *testing.T) {
	for name, q := range map[string]emulator.Quirks{"lost answer": {LostAnswers: true}, "hook": {HookAnswer: true}} {
		t.Run(name, func(t *testing.T) {
			w := newERPWorld(t, emulator.ProfileModern)
			require.NoError(t, w.erp.SetQuirks(q))
			change := func(state string, form ...string) (int, string, string) {
				return w.run(append([]string{"customer", "state-change", "--customer-id", "1001", "--state-id", state}, form...)...)
			}
			for form, want := range map[string]string{"--output=table": "done: customer state-change", "--output=json": `"ok": true`, "--raw": ""} {
				code, out, errs := change("1", form)
				require.Equal(t, cli.ExitOK, code, errs)
				require.Contains(t, out, want)
				require.Contains(t, errs, "note: the ERP has the state, though its answer did not say so: customer.state_change:")
				require.NotContains(t, errs, "next:")
			}
			q.Faults = map[string]emulator.Fault{"customer.get_data": emulator.FaultForbidden}
			require.NoError(t, w.erp.SetQuirks(q))
			code, out, errs := change("2")
			require.Equal(t, cli.ExitUncertain, code)
			require.Empty(t, out)
			require.Contains(t, errs, cli.ErrUncertain.Error()+"; the customer's card could not be read\nnext: ")
		})
	}
}
