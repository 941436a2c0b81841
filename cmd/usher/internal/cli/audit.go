package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/provision/audit"
)

// Audit records what a command did by itself, without the agent, in the audit
// record of stateDir; err is how it ended. Where the record cannot be written the
// act stands, and standard error says so; an empty stateDir is one that nothing names.
func Audit(cmd *cobra.Command, stateDir string, r audit.Record, err error) {
	r.Who = audit.Who{By: audit.ByCommand, Process: audit.Self()}
	if err != nil {
		r.Error = err.Error()
	}
	missing := errors.New("no configuration names a state directory")
	if stateDir != "" {
		missing = audit.Append(stateDir, r)
	}
	if missing != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: this is not in the audit record: %v\n", missing)
	}
}
