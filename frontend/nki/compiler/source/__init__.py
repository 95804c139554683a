"""Where text comes from: functions, modules and the objects a kernel reaches."""
