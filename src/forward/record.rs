//! One line for each connection or flow that ended: what it was and why it ended.
