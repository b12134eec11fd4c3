-- loses: session_templates
drop table session_templates;
